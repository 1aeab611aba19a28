"""Create producers and ledgers from the settings in the environment, for one command."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing

from ...broker import Doorbell
from ...ledger import Ledger
from ...producer import Producer
from ...schemas import Settings


def open_producer() -> AbstractContextManager[Producer]:
    """Return a producer with the settings of the environment; the `with` block closes it.

    Raises:
        SettingsError: a setting is invalid.
    """
    return closing(Producer())


def open_ledger(settings: Settings) -> AbstractContextManager[Ledger]:
    """Return a ledger with `settings`; the `with` block closes it."""
    return closing(Ledger(settings, ring=Doorbell(settings).ring))
