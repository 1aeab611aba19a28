"""The shared state of all handlers: settings, ledger, replays and cancellations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..broker import Doorbell
from ..ledger import Ledger
from ..schemas import Settings
from .cancellations import Cancellations
from .replays import Replays

#: Timeout of Redis calls for a page, in seconds.
_TIMEOUT_SECONDS = 5.0


@dataclass(slots=True)
class Site:
    """The shared state; one per Flower process. `read_only` means that changes are refused."""

    settings: Settings
    ledger: Ledger
    replays: Replays
    cancellations: Cancellations
    #: Thread pool for Redis calls. Flower's own pool is often busy with slow calls to workers.
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(8, thread_name_prefix="failures")
    )
    read_only: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Site:
        """Return the site with a ledger for `settings`, without connecting."""
        ledger = Ledger(settings, timeout_seconds=_TIMEOUT_SECONDS, ring=Doorbell(settings).ring)
        return cls(settings, ledger, Replays(ledger), Cancellations())
