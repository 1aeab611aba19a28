"""The replays of a Flower process: counted, agreed to, watched, and cancelled.

A replay is a thread of the process, and its progress is kept in that process alone. What it did is
in the jobs themselves: one that is cut off, by a restart or because Redis was away, leaves the rest
of the jobs as they were, failed, for another.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from ..producer.replay import Cause, Replay
from ..schemas import QueueUnavailable, from_ms

#: Replays that are remembered; of those that are over, the oldest is forgotten first.
_REMEMBERED = 50
#: Ids of replayed jobs that are kept, to show what became of them.
_IDS_KEPT = 2000
#: How often (seconds) a replay tries again while Redis is away, before it stops.
_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)

logger = logging.getLogger(__name__)


class Stage(str, Enum):
    """Where a replay stands."""

    #: How many jobs it would replay is being found out.
    COUNTING = "counting"
    #: It waits for somebody to agree.
    READY = "ready"
    #: Jobs are being queued.
    RUNNING = "running"
    #: All were.
    DONE = "done"
    #: Somebody called it off.
    CANCELLED = "cancelled"
    #: Redis was away for long; it may be started again.
    INTERRUPTED = "interrupted"


@dataclass(slots=True, kw_only=True)
class TrackedReplay:
    """One replay and its progress.

    Attributes:
        about: which jobs, in words.
        total: jobs that it would replay; grows while it is counted.
        causes: why they failed.
        rate: jobs a second at most; None for no bound.
        replayed, skipped: jobs queued so far, and those that were not failed any more.
        latest_ids: of jobs queued, the latest ones.
    """

    about: str
    replay: Replay
    replay_id: str = field(default_factory=lambda: secrets.token_hex(8))
    stage: Stage = Stage.COUNTING
    total: int = 0
    causes: Sequence[Cause] = ()
    rate: float | None = None
    replayed: int = 0
    skipped: int = 0
    error: str = ""
    asked_at: float = field(default_factory=time.time)
    started_at: float | None = None
    ended_at: float | None = None
    latest_ids: deque[str] = field(default_factory=lambda: deque(maxlen=_IDS_KEPT))
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> datetime:
        """Return when it was asked for, in UTC."""
        return from_ms(round(self.asked_at * 1000))

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.stage not in (Stage.COUNTING, Stage.RUNNING)

    @property
    def seconds_running(self) -> float:
        """Return how long it has run, or ran."""
        if self.started_at is None:
            return 0.0
        return (self.ended_at or time.time()) - self.started_at


class Replays:
    """The replays of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replays: OrderedDict[str, TrackedReplay] = OrderedDict()

    def get(self, replay_id: str) -> TrackedReplay | None:
        """Return the replay, or None if it is not known (any more)."""
        return self._replays.get(replay_id)

    def all(self) -> list[TrackedReplay]:
        """Return those that are remembered, the latest first."""
        with self._lock:
            return list(reversed(self._replays.values()))

    def plan(self, tracked: TrackedReplay) -> None:
        """Count, in a thread, what it would replay. Nothing is sent."""
        with self._lock:
            self._replays[tracked.replay_id] = tracked
            over = [each for each in self._replays.values() if each.is_over]
            for oldest in over[: max(0, len(self._replays) - _REMEMBERED)]:
                del self._replays[oldest.replay_id]
        self._run_in_thread(self._count, tracked)

    def start(self, tracked: TrackedReplay, rate: float | None) -> bool:
        """Begin to replay, `rate` jobs a second at most; False if it cannot be started."""
        with self._lock:
            if tracked.stage not in (Stage.READY, Stage.INTERRUPTED):
                return False
            tracked.stage, tracked.rate, tracked.error = Stage.RUNNING, rate, ""
            tracked.started_at, tracked.ended_at = time.time(), None
            tracked.stop.clear()
        logger.info(
            "replay %s began: %d %s",
            tracked.replay_id,
            tracked.total,
            tracked.about,
            extra={"action": "replay_began"},
        )
        self._run_in_thread(self._replay, tracked)
        return True

    def cancel(self, tracked: TrackedReplay) -> bool:
        """Call it off; False if it is over. Jobs queued already stay queued."""
        with self._lock:
            if tracked.stage in (Stage.DONE, Stage.CANCELLED):
                return False
            waits = tracked.is_over
            tracked.stop.set()
            if waits:
                tracked.stage, tracked.ended_at = Stage.CANCELLED, time.time()
        return True

    def _run_in_thread(
        self, work: Callable[[TrackedReplay], Stage], tracked: TrackedReplay
    ) -> None:
        threading.Thread(
            target=self._guarded, args=(work, tracked), name="replay", daemon=True
        ).start()

    def _guarded(self, work: Callable[[TrackedReplay], Stage], tracked: TrackedReplay) -> None:
        try:
            stage = work(tracked)
        except QueueUnavailable as error:
            stage, tracked.error = Stage.INTERRUPTED, str(error)
        except Exception:  # whoever watches it must learn that nothing more happens
            logger.exception("a fault of this program in a replay", extra={"action": "fault"})
            stage, tracked.error = Stage.INTERRUPTED, "a fault of this program; see Flower's log"
        if tracked.stop.is_set():
            stage = Stage.CANCELLED
        with self._lock:
            tracked.stage = stage
            if stage is not Stage.READY:
                tracked.ended_at = time.time()

    def _count(self, tracked: TrackedReplay) -> Stage:
        def progress(counted: int) -> None:
            tracked.total = counted

        plan = tracked.replay.plan(stop=tracked.stop, progress=progress)
        tracked.total, tracked.causes = plan.total, plan.causes
        return Stage.READY

    def _replay(self, tracked: TrackedReplay) -> Stage:
        def on_outage(error: QueueUnavailable) -> None:
            tracked.error = str(error)

        for batch in tracked.replay.run(
            tracked.rate, stop=tracked.stop, retry_seconds=_RETRY_SECONDS, on_outage=on_outage
        ):
            tracked.error = ""
            tracked.latest_ids.extend(batch.job_ids)
            tracked.replayed += len(batch.job_ids)
            tracked.skipped += len(batch.refused)
        return Stage.DONE
