"""Replays started in Flower: counted, confirmed, watched and canceled.

A replay is a thread of one Flower process. Its progress is stored in the ledger, so every Flower
of the namespace shows it, can stop it, and can resume it if the process that ran it is gone. The
jobs it did not reach stay failed.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from ..ledger import Ledger, StoredReplay
from ..producer.bulk_replay import Cause, Replay
from ..schemas import QueueUnavailable, from_ms

#: Ids of replayed jobs that are kept, to show their states.
_IDS_KEPT = 2000
#: Of these, how many are stored in the ledger.
_IDS_STORED = 200
#: Pauses (seconds) before each new try while Redis is away; then the replay stops.
_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: How often (seconds) the progress is stored, and a stop by another process is noticed.
_SAVE_SECONDS = 1.0
#: A replay that is not stored for this long (seconds) has lost its process.
_OWNER_TTL_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Stage(str, Enum):
    """Where a replay stands."""

    #: Its jobs are being counted.
    COUNTING = "counting"
    #: It waits for a confirmation.
    READY = "ready"
    #: Jobs are being queued.
    RUNNING = "running"
    #: All jobs were queued.
    DONE = "done"
    #: It was canceled.
    CANCELLED = "canceled"
    #: Redis was away, or the process that ran it ended; it may be started again.
    INTERRUPTED = "interrupted"


@dataclass(slots=True, kw_only=True)
class TrackedReplay:
    """One replay and its progress.

    Attributes:
        about: which jobs, in words.
        total: jobs that it would replay; grows while they are counted.
        causes: why they failed.
        rate: jobs per second at most; None for no limit.
        replayed, skipped: jobs queued so far, and those that were not failed any more.
        latest_ids: the latest jobs that were queued.
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
        """Whether no process works on it."""
        return self.stage not in (Stage.COUNTING, Stage.RUNNING)

    @property
    def seconds_running(self) -> float:
        """Return how long it has run, or ran."""
        if self.started_at is None:
            return 0.0
        return (self.ended_at or time.time()) - self.started_at

    def to_json(self) -> str:
        """Return it as text for the ledger."""
        return json.dumps(
            {
                "about": self.about,
                "jobs": self.replay.as_json(),
                "stage": self.stage.value,
                "total": self.total,
                "causes": [asdict(cause) for cause in self.causes],
                "rate": self.rate,
                "replayed": self.replayed,
                "skipped": self.skipped,
                "error": self.error,
                "asked_at": self.asked_at,
                "started_at": self.started_at,
                "ended_at": self.ended_at,
                "latest_ids": list(self.latest_ids)[-_IDS_STORED:],
            }
        )

    @classmethod
    def from_stored(cls, stored: StoredReplay, ledger: Ledger) -> TrackedReplay | None:
        """Return a replay as it was stored, or None if another client wrote it."""
        try:
            values: dict[str, Any] = json.loads(stored.state)
            tracked = cls(
                replay_id=stored.replay_id,
                about=str(values["about"]),
                replay=Replay.from_json(ledger, values["jobs"]),
                stage=Stage(values["stage"]),
                total=int(values["total"]),
                causes=[Cause(**cause) for cause in values["causes"]],
                rate=values["rate"],
                replayed=int(values["replayed"]),
                skipped=int(values["skipped"]),
                error=str(values["error"]),
                asked_at=float(values["asked_at"]),
                started_at=values["started_at"],
                ended_at=values["ended_at"],
            )
            tracked.latest_ids.extend(map(str, values["latest_ids"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        if not tracked.is_over and not stored.has_owner:
            # Before the count is complete, nobody has confirmed it.
            was_running = tracked.stage is Stage.RUNNING
            tracked.stage = Stage.INTERRUPTED if was_running else Stage.CANCELLED
            tracked.error = "Flower was stopped while it worked on this replay"
        return tracked


class Replays:
    """The replays of a namespace, of which this process runs some. Safe to use from any thread.

    Every method raises `QueueUnavailable` unless it says otherwise.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store = ledger.replay_store
        self._owner = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        #: Those this process works on, and those whose end is not stored yet.
        self._own: dict[str, TrackedReplay] = {}
        self._saver: threading.Thread | None = None

    def get(self, replay_id: str) -> TrackedReplay | None:
        """Return the replay, or None if there is none (any more)."""
        own = self._own.get(replay_id)
        if own is not None:
            return own
        stored = self._store.get(replay_id)
        return TrackedReplay.from_stored(stored, self._ledger) if stored else None

    def all(self) -> list[TrackedReplay]:
        """Return the replays that are kept, the latest first."""
        return self._with_own(self._store.latest())

    def running(self) -> list[TrackedReplay]:
        """Return the replays that are running, the latest first."""
        found = self._with_own(self._store.owned())
        return [each for each in found if each.stage is Stage.RUNNING]

    def _with_own(self, replays: Sequence[StoredReplay]) -> list[TrackedReplay]:
        stored = (TrackedReplay.from_stored(each, self._ledger) for each in replays)
        found = {each.replay_id: each for each in stored if each is not None}
        with self._lock:
            found |= self._own
        return sorted(found.values(), key=lambda each: each.asked_at, reverse=True)

    def plan(self, tracked: TrackedReplay) -> None:
        """Count, in a thread, the jobs it would replay. Nothing is sent."""
        with self._lock:
            self._own[tracked.replay_id] = tracked
        self._work(self._count, tracked)

    def start(self, tracked: TrackedReplay, rate: float | None) -> bool:
        """Start to replay, at most `rate` jobs per second; False if it cannot be started now."""
        with self._lock:
            working = self._own.get(tracked.replay_id, tracked)
            if working.stage not in (Stage.READY, Stage.INTERRUPTED):
                return False
            before, tracked.stage = tracked.stage, Stage.RUNNING
            self._own[tracked.replay_id] = tracked
        claimed = False
        try:
            claimed = self._store.claim(
                tracked.replay_id, self._owner, ttl_seconds=_OWNER_TTL_SECONDS
            )
        finally:
            if not claimed:
                with self._lock:
                    tracked.stage = before
                    self._own.pop(tracked.replay_id, None)
        if not claimed:
            return False
        tracked.rate, tracked.error = rate, ""
        tracked.started_at, tracked.ended_at = time.time(), None
        tracked.stop.clear()
        logger.info(
            "replay %s began: %d %s",
            tracked.replay_id,
            tracked.total,
            tracked.about,
            extra={"action": "replay_began"},
        )
        self._work(self._replay, tracked)
        return True

    def cancel(self, tracked: TrackedReplay) -> bool:
        """Cancel it; False if it is over. Jobs queued already stay queued."""
        with self._lock:
            if tracked.stage in (Stage.DONE, Stage.CANCELLED):
                return False
            is_own = tracked.replay_id in self._own
            if is_own:
                tracked.stop.set()
            is_working = not tracked.is_over
            if not is_working:
                tracked.stage, tracked.ended_at = Stage.CANCELLED, time.time()
        if not is_working:
            self._save(tracked)
        elif not is_own:
            self._store.request_stop(tracked.replay_id)
        return True

    def _save(self, tracked: TrackedReplay) -> None:
        """Store the progress of a replay that this process works on, or how its work ended."""
        asked_ms = round(tracked.asked_at * 1000)
        # One at a time: an older state must not be stored after the end.
        with self._saving:
            if tracked.is_over:
                self._store.release(tracked.replay_id, tracked.to_json(), asked_ms=asked_ms)
                with self._lock:
                    if tracked.is_over:
                        self._own.pop(tracked.replay_id, None)
                return
            must_stop = self._store.save(
                tracked.replay_id,
                tracked.to_json(),
                self._owner,
                asked_ms=asked_ms,
                ttl_seconds=_OWNER_TTL_SECONDS,
            )
        if must_stop:
            tracked.stop.set()

    def _work(self, work: Callable[[TrackedReplay], Stage], tracked: TrackedReplay) -> None:
        threading.Thread(
            target=self._guarded, args=(work, tracked), name="replay", daemon=True
        ).start()
        with self._lock:
            if self._saver is None:
                self._saver = threading.Thread(
                    target=self._save_until_idle, name="replay-saver", daemon=True
                )
                self._saver.start()

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
        # While Redis is away, the saver tries again.
        with suppress(QueueUnavailable):
            self._save(tracked)

    def _save_until_idle(self) -> None:
        while True:
            with self._lock:
                own = list(self._own.values())
                if not own:
                    self._saver = None
                    return
            with suppress(QueueUnavailable):
                for tracked in own:
                    self._save(tracked)
            time.sleep(_SAVE_SECONDS)

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
