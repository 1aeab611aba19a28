"""Replaying failed jobs, many at once: counted, agreed to, paced, watched, and cancelled.

A replay is a thread of the Flower process, and its progress is kept in that process alone. What it
did is in the jobs themselves: one that is cut off, by a restart or because Redis was away, leaves
the rest of the jobs as they were, failed, for another.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from ...ledger import Doorbell, JobFilter, Ledger
from ...schemas import QueueUnavailable, State, from_ms

#: Replays that are remembered; of those that are over, the oldest is forgotten first.
_REMEMBERED = 50
#: Jobs replayed by one script call, at most.
_CHUNK = 500
#: Ids of replayed jobs that are kept, to tell what became of them.
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
class Replay:
    """One replay, of jobs by their ids or by a filter.

    Attributes:
        about: which jobs, in words.
        job_ids: the jobs; or None, and then `wanted` and `text` say which.
        wanted: bounded by when the replay was asked for, so that a job which fails again is not
            taken up again.
        total: jobs that it would replay; grows while it is counted.
        rate: jobs a second at most; None for no bound.
        replayed, skipped: jobs queued so far, and those that were not failed any more.
        latest_ids: of jobs queued, the latest ones.
    """

    about: str
    job_ids: Sequence[str] | None = None
    wanted: JobFilter = field(default_factory=JobFilter)
    text: str = ""
    replay_id: str = field(default_factory=lambda: secrets.token_hex(8))
    stage: Stage = Stage.COUNTING
    total: int = 0
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

    def __init__(self, ledger: Ledger, doorbell: Doorbell) -> None:
        self._ledger = ledger
        self._doorbell = doorbell
        self._lock = threading.Lock()
        self._replays: OrderedDict[str, Replay] = OrderedDict()

    def get(self, replay_id: str) -> Replay | None:
        """Return the replay, or None if it is not known (any more)."""
        return self._replays.get(replay_id)

    def all(self) -> list[Replay]:
        """Return those that are remembered, the latest first."""
        with self._lock:
            return list(reversed(self._replays.values()))

    def plan(self, replay: Replay) -> None:
        """Count, in a thread, what it would replay. Nothing is sent."""
        with self._lock:
            self._replays[replay.replay_id] = replay
            over = [each for each in self._replays.values() if each.is_over]
            for oldest in over[: max(0, len(self._replays) - _REMEMBERED)]:
                del self._replays[oldest.replay_id]
        self._run_in_thread(self._count, replay)

    def start(self, replay: Replay, rate: float | None) -> bool:
        """Begin to replay, `rate` jobs a second at most; False if it cannot be started."""
        with self._lock:
            if replay.stage not in (Stage.READY, Stage.INTERRUPTED):
                return False
            replay.stage, replay.rate, replay.error = Stage.RUNNING, rate, ""
            replay.started_at, replay.ended_at = time.time(), None
            replay.stop.clear()
        logger.info(
            "replay %s began: %d %s",
            replay.replay_id,
            replay.total,
            replay.about,
            extra={"action": "replay_began"},
        )
        self._run_in_thread(self._replay, replay)
        return True

    def cancel(self, replay: Replay) -> bool:
        """Call it off; False if it is over. Jobs queued already stay queued."""
        with self._lock:
            if replay.stage in (Stage.DONE, Stage.CANCELLED):
                return False
            waits = replay.is_over
            replay.stop.set()
            if waits:
                replay.stage, replay.ended_at = Stage.CANCELLED, time.time()
        return True

    def _run_in_thread(self, work: Callable[[Replay], Stage], replay: Replay) -> None:
        threading.Thread(
            target=self._guarded, args=(work, replay), name="replay", daemon=True
        ).start()

    def _guarded(self, work: Callable[[Replay], Stage], replay: Replay) -> None:
        try:
            stage = work(replay)
        except QueueUnavailable as error:
            stage, replay.error = Stage.INTERRUPTED, str(error)
        except Exception:  # whoever watches it must learn that nothing more happens
            logger.exception("a fault of this program in a replay", extra={"action": "fault"})
            stage, replay.error = Stage.INTERRUPTED, "a fault of this program; see Flower's log"
        if replay.stop.is_set():
            stage = Stage.CANCELLED
        with self._lock:
            replay.stage = stage
            if stage is not Stage.READY:
                replay.ended_at = time.time()

    def _count(self, replay: Replay) -> Stage:
        if replay.job_ids is not None:
            replay.total = self._ledger.failures.states(replay.job_ids).get(State.FAILED, 0)
            return Stage.READY
        count = None if replay.text else self._ledger.failures.count(replay.wanted)
        if count is not None:
            replay.total = count
            return Stage.READY
        for ids in self._ids(replay, _CHUNK):
            if replay.stop.is_set():
                break
            replay.total += len(ids)
        return Stage.READY

    def _replay(self, replay: Replay) -> Stage:
        began = time.monotonic()
        done = 0
        # About ten calls a second are even enough.
        step = _CHUNK if replay.rate is None else min(_CHUNK, max(1, math.floor(replay.rate / 10)))
        for ids in self._ids(replay, step):
            if replay.rate is not None:
                replay.stop.wait(max(0.0, began + done / replay.rate - time.monotonic()))
            if replay.stop.is_set():
                break
            self._queue(replay, ids)
            done += len(ids)
        return Stage.DONE

    def _ids(self, replay: Replay, step: int) -> Iterator[Sequence[str]]:
        if replay.job_ids is None:
            yield from self._ledger.failures.each_ids(replay.wanted, text=replay.text, chunk=step)
            return
        while replay.job_ids:
            yield replay.job_ids[:step]
            # Not before: what was cut off is there to go on with.
            replay.job_ids = replay.job_ids[step:]

    def _queue(self, replay: Replay, ids: Sequence[str]) -> None:
        """Queue some jobs again; while Redis is away, try again for a while."""
        for pause_seconds in (*_RETRY_SECONDS, None):
            try:
                states, ring = self._ledger.replay(ids)
            except QueueUnavailable as error:
                if pause_seconds is None or replay.stop.wait(pause_seconds):
                    raise
                replay.error = str(error)
                continue
            break
        replay.error = ""
        if ring:
            self._doorbell.ring()
        queued = [
            job_id for job_id, state in zip(ids, states, strict=True) if state is State.FAILED
        ]
        replay.latest_ids.extend(queued)
        replay.replayed += len(queued)
        replay.skipped += len(ids) - len(queued)
