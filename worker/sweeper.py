"""The sweep, every second in every worker: what is due moves on, whatever died before."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from ..ledger import Doorbell, Ledger, UnknownOutcome
from ..schemas import QueueUnavailable, Settings
from .tokens import Tokens, fingerprint_of
from .unsent import UnsentObserver, log_unsent

#: Between two sweeps of one worker, in seconds.
SWEEP_EVERY_SECONDS = 1.0
#: After Redis was away, leases are not ended for this long (seconds): the holders, cut off like
#: this worker was, first get to record the outcomes they kept.
GRACE_AFTER_OUTAGE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Sweeper:
    """A thread of the worker's main process. Safe to run in every worker at once.

    Args:
        observe: called with the jobs whose lease ran out. Must neither block nor raise.
        observe_unsent: called with jobs that the sweep failed, since they are none.
        observe_repairs: called with the number of keys that were repaired. Must not raise.
    """

    def __init__(
        self,
        settings: Settings,
        observe: Callable[[list[UnknownOutcome]], None] = lambda _: None,
        observe_unsent: UnsentObserver = log_unsent,
        observe_repairs: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._observe = observe
        self._observe_unsent = observe_unsent
        self._observe_repairs = observe_repairs
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._end_leases_from = 0.0
        self._away = False
        self._pauses_cursor = 0

    def start(self) -> None:
        """Begin to sweep."""
        if self._thread is not None:
            return
        self._ledger = Ledger(self._settings)
        self._doorbell = Doorbell(self._settings)
        self._tokens = Tokens(self._settings)
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sweeping; returns when the sweep under way has ended."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                more = self._sweep()
                self._away = False
            except QueueUnavailable as error:
                self._end_leases_from = time.monotonic() + GRACE_AFTER_OUTAGE_SECONDS
                if not self._away:
                    logger.warning("%s; trying again", error, extra={"action": "redis_away"})
                self._away = True
            except Exception:  # a sweep that ended for good would leave every retry waiting
                logger.exception("a fault of this program in the sweep", extra={"action": "fault"})
            if not more:
                # Spread, so that many workers started together do not sweep together.
                self._stopping.wait(SWEEP_EVERY_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    def _sweep(self) -> bool:
        """Sweep once; return whether to sweep again at once."""
        swept = self._ledger.sweep(end_leases=time.monotonic() >= self._end_leases_from)
        for job in swept.unknown:
            logger.warning(
                "job %s of page %s: %s, its worker went away while sending",
                job.job_id,
                job.page_id,
                job.state,
                extra={
                    "action": f"job_{job.state}",
                    "job_id": job.job_id,
                    "page_id": job.page_id,
                    "error_code": "unknown_outcome",
                },
            )
        for text in swept.repairs:
            logger.warning("repaired in Redis: %s", text, extra={"action": "repaired"})
        self._observe_repairs(len(swept.repairs))
        self._observe(swept.unknown)
        self._observe_unsent(swept.unsent)
        if swept.ring | self._resume_pages_with_new_tokens():
            self._doorbell.ring()
        return swept.more

    def _resume_pages_with_new_tokens(self) -> bool:
        # Some in each sweep: with one token for very many pages, all of them may be paused.
        pauses, self._pauses_cursor = self._ledger.reader.some_pauses(self._pauses_cursor)
        refused = {
            pause.page_id: pause.token_fingerprint
            for pause in pauses
            if pause.reason == "auth"
            and pause.token_fingerprint != fingerprint_of(self._tokens.for_page(pause.page_id))
        }
        # A pump that has not yet read the new token would have the old one refused again.
        return bool(refused) and self._tokens.settled and self._ledger.resume(refused)
