"""Cancellations by filter in Flower: jobs are counted, the user confirms, progress is shown.

A cancellation is a thread of this process, and its progress is kept in memory. If Flower is
stopped, the remaining jobs are not canceled. The audit has the number of canceled jobs.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from ..producer.cancellation import Cancellation, CancelReport
from ..schemas import QueueUnavailable

#: Maximum number of cancellations to keep; the oldest that has ended is removed first.
_KEPT = 50

logger = logging.getLogger(__name__)


class CancelStage(str, Enum):
    """The stage of a cancellation."""

    #: Its jobs are being counted.
    COUNTING = "counting"
    #: It waits for a confirmation.
    READY = "ready"
    #: Jobs are being canceled.
    RUNNING = "running"
    #: All jobs were canceled.
    DONE = "done"
    #: It was stopped, or not confirmed.
    STOPPED = "stopped"
    #: Redis was not available; it can be started again.
    INTERRUPTED = "interrupted"


#: Stages in which a thread works on it.
WORKING = frozenset({CancelStage.COUNTING, CancelStage.RUNNING})


@dataclass(slots=True, kw_only=True)
class TrackedCancellation:
    """One cancellation and its progress.

    Attributes:
        about: a description of the jobs.
        plan: the jobs that were counted before the confirmation.
        report: the jobs that were canceled so far.
    """

    about: str
    cancellation: Cancellation
    cancellation_id: str = field(default_factory=lambda: secrets.token_hex(8))
    stage: CancelStage = CancelStage.COUNTING
    plan: CancelReport = field(default_factory=CancelReport)
    report: CancelReport = field(default_factory=CancelReport)
    canceled_before: int = 0
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def is_working(self) -> bool:
        """Whether a thread works on it."""
        return self.stage in WORKING

    @property
    def canceled(self) -> int:
        """The number of canceled jobs, before and after an interruption."""
        return self.canceled_before + self.report.count


class Cancellations:
    """The cancellations of this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, TrackedCancellation] = OrderedDict()

    def get(self, cancellation_id: str) -> TrackedCancellation | None:
        """Return the cancellation, or None if it does not exist or was removed."""
        return self._kept.get(cancellation_id)

    def plan(self, tracked: TrackedCancellation) -> None:
        """Start to count the matching jobs in a thread. Nothing is canceled."""
        with self._lock:
            self._kept[tracked.cancellation_id] = tracked
            over = [each for each in self._kept.values() if not each.is_working]
            for oldest in over[: max(0, len(self._kept) - _KEPT)]:
                del self._kept[oldest.cancellation_id]
        self._work(tracked, tracked.cancellation.plan, CancelStage.READY)

    def start(self, tracked: TrackedCancellation) -> bool:
        """Start to cancel the jobs. Return False if it cannot be started now."""
        with self._lock:
            if tracked.stage not in (CancelStage.READY, CancelStage.INTERRUPTED):
                return False
            tracked.stage, tracked.error = CancelStage.RUNNING, ""
            tracked.canceled_before, tracked.report = tracked.canceled, CancelReport()
        self._work(tracked, tracked.cancellation.run, CancelStage.DONE)
        return True

    def stop(self, tracked: TrackedCancellation) -> bool:
        """Stop it. Return False if it has ended. Canceled jobs stay canceled."""
        with self._lock:
            if tracked.stage in (CancelStage.DONE, CancelStage.STOPPED):
                return False
            tracked.stop.set()
            if not tracked.is_working:
                tracked.stage = CancelStage.STOPPED
        return True

    def _work(
        self,
        tracked: TrackedCancellation,
        steps: Callable[[], Iterator[CancelReport]],
        then: CancelStage,
    ) -> None:
        def work() -> None:
            stage = then
            try:
                for report in steps():
                    if then is CancelStage.READY:
                        tracked.plan = report
                    else:
                        tracked.report = report
                    if tracked.stop.is_set():
                        break
            except QueueUnavailable as error:
                stage, tracked.error = CancelStage.INTERRUPTED, str(error)
            except Exception:  # Set a final stage, so that the page shows the failure.
                logger.exception("internal error in a cancellation", extra={"action": "fault"})
                stage, tracked.error = (
                    CancelStage.INTERRUPTED,
                    "an internal error; see Flower's log",
                )
            with self._lock:
                # A cancellation with an incomplete count was not confirmed.
                incomplete = then is CancelStage.READY and stage is CancelStage.INTERRUPTED
                stopped = tracked.stop.is_set() or incomplete
                tracked.stage = CancelStage.STOPPED if stopped else stage

        threading.Thread(target=work, name="cancellation", daemon=True).start()
