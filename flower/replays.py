"""Replays in Flower: jobs are counted, the user confirms, progress is shown.

A replay is a thread of one Flower process. Its progress is stored in the ledger, so every Flower
of the namespace shows it, can stop it, and can resume it if its process has ended. The
remaining jobs stay failed.
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

#: Maximum number of ids of replayed jobs to keep, to show their states.
_IDS_KEPT = 2000
#: Maximum number of these ids to store in the ledger.
_IDS_STORED = 200
#: Seconds before each retry while Redis is not available. After the last one, the replay stops.
_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Interval in seconds to store the progress, and to check whether another process stopped it.
_SAVE_SECONDS = 1.0
#: Seconds without an update after which the process of a replay is considered dead.
_OWNER_TTL_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Stage(str, Enum):
    """The stage of a replay."""

    #: Its jobs are being counted.
    COUNTING = "counting"
    #: It waits for a confirmation.
    READY = "ready"
    #: Jobs are being queued.
    RUNNING = "running"
    #: All jobs were queued.
    DONE = "done"
    #: It was stopped, or not confirmed.
    STOPPED = "stopped"
    #: Redis was not available, or its process ended; it can be started again.
    INTERRUPTED = "interrupted"


@dataclass(slots=True, kw_only=True)
class TrackedReplay:
    """One replay and its progress.

    Attributes:
        about: a description of the jobs.
        total: number of jobs to replay; increases during the count.
        causes: the causes of the failures.
        rate: maximum number of jobs per second; None for no limit.
        replayed, skipped: number of jobs queued so far, and of jobs that were no longer failed.
        latest_ids: the ids of the jobs that were queued last.
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
        """Return when it was requested, in UTC."""
        return from_ms(round(self.asked_at * 1000))

    @property
    def is_over(self) -> bool:
        """Whether no process works on it."""
        return self.stage not in (Stage.COUNTING, Stage.RUNNING)

    @property
    def seconds_running(self) -> float:
        """Return its running time so far, or in total."""
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
        """Return a stored replay, or None if the value is invalid."""
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
            # A replay with an incomplete count was not confirmed.
            was_running = tracked.stage is Stage.RUNNING
            tracked.stage = Stage.INTERRUPTED if was_running else Stage.STOPPED
            tracked.error = "Flower was stopped during this replay"
        return tracked


class Replays:
    """The replays of a namespace; this process may run some of them. Thread-safe.

    Every method can raise `QueueUnavailable` unless its docstring excludes it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._store = ledger.replay_store
        self._owner = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        #: The replays of this process that are running, or whose end is not stored yet.
        self._own: dict[str, TrackedReplay] = {}
        self._saver: threading.Thread | None = None

    def get(self, replay_id: str) -> TrackedReplay | None:
        """Return the replay, or None if it does not exist or was removed."""
        own = self._own.get(replay_id)
        if own is not None:
            return own
        stored = self._store.get(replay_id)
        return TrackedReplay.from_stored(stored, self._ledger) if stored else None

    def all(self) -> list[TrackedReplay]:
        """Return the stored replays, the latest first."""
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
        """Start to count the matching jobs in a thread. Nothing is sent."""
        with self._lock:
            self._own[tracked.replay_id] = tracked
        self._work(self._count, tracked)

    def start(self, tracked: TrackedReplay, rate: float | None) -> bool:
        """Start to replay at most `rate` jobs per second. Return False if it cannot be started."""
        with self._lock:
            working = self._own.get(tracked.replay_id, tracked)
            if working.stage not in (Stage.READY, Stage.INTERRUPTED):
                return False
            before, tracked.stage = tracked.stage, Stage.RUNNING
            self._own[tracked.replay_id] = tracked
        claimed = False
        try:
            # Not while its earlier end is being stored, which removes the owner.
            with self._saving:
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

    def stop(self, tracked: TrackedReplay) -> bool:
        """Stop it. Return False if it has ended. Queued jobs stay queued."""
        with self._lock:
            if tracked.stage in (Stage.DONE, Stage.STOPPED):
                return False
            is_own = tracked.replay_id in self._own
            if is_own:
                tracked.stop.set()
            is_working = not tracked.is_over
            if not is_working:
                tracked.stage, tracked.ended_at = Stage.STOPPED, time.time()
        if not is_working:
            self._save(tracked)
        elif not is_own:
            self._store.request_stop(tracked.replay_id)
        return True

    def _save(self, tracked: TrackedReplay) -> None:
        """Store the progress or the end of a replay of this process."""
        asked_ms = round(tracked.asked_at * 1000)
        # Serialized, so that an older state is not stored after the end.
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
        except Exception:  # Set a final stage, so that the page shows the failure.
            logger.exception("internal error in a replay", extra={"action": "fault"})
            stage, tracked.error = Stage.INTERRUPTED, "an internal error; see Flower's log"
        if tracked.stop.is_set():
            stage = Stage.STOPPED
        with self._lock:
            tracked.stage = stage
            if stage is not Stage.READY:
                tracked.ended_at = time.time()
        # While Redis is not available, the saver retries.
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
