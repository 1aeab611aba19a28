"""One visit to the ledger, made on its thread: record a batch, then claim."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor

from ..ledger import Claimed, Ledger, Result


class Visit:
    """A visit that is to be made, under way or over.

    Once over:

    Attributes:
        batch: the results to record.
        held: for each of them, whether its claim still held; None if nothing was recorded.
        claimed: what was claimed; None if nothing was to be, or it failed.
        error: what the ledger raised.
    """

    def __init__(
        self, ledger: Ledger, batch: list[Result], claim: Callable[[], Claimed] | None
    ) -> None:
        self.batch = batch
        self.held: list[bool] | None = None
        self.claimed: Claimed | None = None
        self.error: Exception | None = None
        self._ledger = ledger
        self._claim = claim
        self._is_handed_over = False
        self._is_over = False
        # Taken by the thread that makes the visit, or by the one that cancels it.
        self._once = threading.Lock()

    def begin(self, thread: Executor, when_over: Callable[[], None]) -> None:
        """Have it made. `when_over` is called on that thread."""
        thread.submit(self._make, when_over)
        self._is_handed_over = True

    def is_over(self) -> bool:
        """Return whether it is over. If `begin` was interrupted, cancel it unless it began."""
        if not self._is_handed_over and self._once.acquire(blocking=False):
            self._is_over = True
        return self._is_over

    def _make(self, when_over: Callable[[], None]) -> None:
        if not self._once.acquire(blocking=False):
            return
        try:
            # A batch twice the same is harmless: the second time, the claims no longer hold.
            self.held = self._ledger.record(self.batch) if self.batch else []
            if self._claim is not None:
                self.claimed = self._claim()
        except Exception as error:  # noqa: BLE001 - the pump raises it, on its own thread
            self.error = error
        finally:
            self._is_over = True
            when_over()
