"""A visit to the ledger: record a batch, then claim. It runs on the ledger's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor

from ..ledger import Claimed, Ledger, Result


class Visit:
    """A visit to the ledger. The attributes are final when `is_over` returns True.

    Attributes:
        batch: the results to record.
        held: for each result, whether its claim was still valid; None if nothing was recorded.
        claimed: the claimed jobs; None if the visit did not claim, or failed.
        error: the exception that the ledger raised.
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
        # Acquired by the thread that runs the visit, or by the one that cancels it.
        self._once = threading.Lock()

    def begin(self, thread: Executor, when_over: Callable[[], None]) -> None:
        """Submit the visit to `thread`, which calls `when_over` at the end."""
        thread.submit(self._make, when_over)
        self._is_handed_over = True

    def is_over(self) -> bool:
        """Return whether the visit is over.

        If `begin` was interrupted and the visit has not started, this cancels it.
        """
        if not self._is_handed_over and self._once.acquire(blocking=False):
            self._is_over = True
        return self._is_over

    def _make(self, when_over: Callable[[], None]) -> None:
        if not self._once.acquire(blocking=False):
            return
        try:
            # It is safe to record a batch twice: the second time, the claims are no longer valid.
            self.held = self._ledger.record(self.batch) if self.batch else []
            if self._claim is not None:
                self.claimed = self._claim()
        except Exception as error:  # noqa: BLE001 - the pump raises it, on its own thread
            self.error = error
        finally:
            self._is_over = True
            when_over()
