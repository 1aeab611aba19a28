"""Create producers and ledgers from the settings in the environment, for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...broker import Doorbell
from ...ledger import Ledger
from ...producer import Producer
from ...schemas import Settings


@contextmanager
def open_producer() -> Iterator[Producer]:
    """Yield a producer with the settings of the environment; close it at the end.

    Raises:
        SettingsError: a setting is invalid.
    """
    producer = Producer(Settings.from_environment())
    try:
        yield producer
    finally:
        producer.close()


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """Yield a ledger with `settings`; close it at the end."""
    ledger = Ledger(settings, ring=Doorbell(settings).ring)
    try:
        yield ledger
    finally:
        ledger.close()
