"""What all handlers share: the settings, the ledger, replays and cancellations."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..broker import Doorbell
from ..ledger import Ledger
from ..schemas import Settings
from .cancellations import Cancellations
from .replays import Replays

#: For Redis to answer a page, in seconds.
_TIMEOUT_SECONDS = 5.0


@dataclass(slots=True)
class Site:
    """One per Flower process. `read_only` means that nothing may be changed."""

    settings: Settings
    ledger: Ledger
    replays: Replays
    cancellations: Cancellations
    #: Runs the calls to Redis for pages. Flower's own pool is often full of slow calls to workers.
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(8, thread_name_prefix="failures")
    )
    read_only: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Site:
        """Return the site of the ledger that `settings` name; nothing is connected yet."""
        ledger = Ledger(settings, timeout_seconds=_TIMEOUT_SECONDS, ring=Doorbell(settings).ring)
        return cls(settings, ledger, Replays(ledger), Cancellations())
