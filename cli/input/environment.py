"""Producers and ledgers made from the settings in the environment, for one command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...broker import Doorbell
from ...ledger import Ledger
from ...producer import Producer
from ...schemas import Settings


@contextmanager
def open_producer() -> Iterator[Producer]:
    """Yield a producer made from the environment, and close it.

    Raises:
        SettingsError: a setting is wrong.
    """
    producer = Producer(Settings.from_environment())
    try:
        yield producer
    finally:
        producer.close()


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """Yield the ledger that `settings` name, and close it."""
    ledger = Ledger(settings, ring=Doorbell(settings).ring)
    try:
        yield ledger
    finally:
        ledger.close()
