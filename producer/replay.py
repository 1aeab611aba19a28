"""Replaying failed jobs: what would be replayed and why it failed, then at a pace."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from ..ledger import Cursor, JobFilter, Ledger
from ..schemas import QueueUnavailable, State, from_ms
from ..schemas.error_codes import explain_any

#: Jobs replayed by one script call, at most; enough that its fixed cost does not show.
_BATCH_SIZE = 500
#: Script calls a second at most where there is a rate: enough for an even pace.
_BATCHES_PER_SECOND = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cause:
    """An error code, its number of jobs, what it means and what to do; named as in the JSON."""

    error_code: str
    count: int
    meaning: str
    what_to_do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """What a replay would do.

    Attributes:
        total: jobs that would be replayed.
        causes: why they failed, the most frequent error code first.
        refused: of jobs named by id, the state of those that are not failed; None: there is none.
    """

    total: int = 0
    causes: Sequence[Cause] = ()
    refused: Mapping[str, State | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Some jobs that were queued again, and the state of others (None: there is no job)."""

    job_ids: list[str]
    refused: dict[str, State | None]


def replay_jobs(ledger: Ledger, job_ids: Sequence[str]) -> Replayed:
    """Queue failed jobs again, at once; jobs in other states stay as they are.

    Raises:
        QueueUnavailable: Redis did not do it, or the reply was lost.
    """
    before = dict(zip(job_ids, ledger.replay(job_ids), strict=True))
    return Replayed(
        job_ids=[job_id for job_id, state in before.items() if state is State.FAILED],
        refused={job_id: state for job_id, state in before.items() if state is not State.FAILED},
    )


class Replay:
    """One replay of failed jobs, named by id or by a filter.

    A job that fails again after the replay was planned is not replayed twice.

    Args:
        job_ids: the jobs; or None, and then `wanted` and `text` select them.
        wanted: a filter of failed jobs.
        text: a text that the jobs contain; see `Reader`.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        job_ids: Sequence[str] | None = None,
        wanted: JobFilter | None = None,
        text: str = "",
    ) -> None:
        self._ledger = ledger
        self._job_ids = None if job_ids is None else list(dict.fromkeys(job_ids))
        self._wanted = wanted or JobFilter()
        self._is_bounded = False
        self._text = text

    def plan(
        self,
        *,
        stop: threading.Event | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> ReplayPlan:
        """Count the jobs; nothing is sent. A later `run` replays these jobs and no others.

        Args:
            stop: ends the count early, once it is set.
            progress: called with the number of jobs counted so far, where that takes long.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        if self._job_ids is not None:
            return self._plan_ids(self._job_ids)
        wanted = self._bound()
        if not self._text and not wanted.page_ids:
            codes = self._ledger.reader.count_by_error_code(wanted).by_name
            return _plan(codes, total=self._ledger.reader.count_failed(wanted))
        # No index has the answer.
        read: Counter[str] = Counter()
        after: Cursor | None = None
        while not (stop and stop.is_set()):
            page = self._ledger.reader.failed_ids(wanted, text=self._text, after=after)
            read.update(page.values)
            after = page.after
            if progress is not None:
                progress(read.total())
            if after is None:
                break
        return _plan(read)

    def run(
        self,
        rate: float | None = None,
        *,
        stop: threading.Event | None = None,
        retry_seconds: Sequence[float] = (),
        on_outage: Callable[[QueueUnavailable], object] | None = None,
    ) -> Iterator[Replayed]:
        """Queue the jobs again, and yield each batch; may be run again after an error.

        Args:
            rate: jobs per second at most; None for no limit.
            stop: ends the replay, once it is set, after the current batch.
            retry_seconds: pauses before each new try while Redis is away.
            on_outage: called with the error before each such pause.

        Raises:
            QueueUnavailable: Redis was away at every try. Whether the jobs of the batch under way
                were replayed is unknown.
        """
        stop = stop or threading.Event()
        attempt = _Attempts(stop=stop, pauses=retry_seconds, on_outage=on_outage)
        size = _BATCH_SIZE
        if rate is not None:
            size = min(_BATCH_SIZE, max(1, math.floor(rate / _BATCHES_PER_SECOND)))
        began, done = time.monotonic(), 0
        for job_ids in self._batches(size, attempt):
            if rate is not None:
                stop.wait(max(0.0, began + done / rate - time.monotonic()))
            if stop.is_set():
                return
            yield attempt(partial(replay_jobs, self._ledger, job_ids))
            done += len(job_ids)

    def _batches(self, size: int, attempt: _Attempts) -> Iterator[Sequence[str]]:
        if self._job_ids is not None:
            while self._job_ids:
                yield self._job_ids[:size]
                # Only now: after an error, these are tried again.
                self._job_ids = self._job_ids[size:]
            return
        wanted = attempt(self._bound)
        after: Cursor | None = None
        while True:
            page = attempt(
                partial(
                    self._ledger.reader.failed_ids,
                    wanted,
                    text=self._text,
                    after=after,
                    limit=size,
                )
            )
            if page.ids:
                yield page.ids
            after = page.after
            if after is None:
                return

    def _bound(self) -> JobFilter:
        """Return the filter, without jobs that fail after this was first called."""
        if not self._is_bounded:
            now = from_ms(self._ledger.reader.now_ms())
            until = min(self._wanted.until or now, now)
            if self._wanted.since is not None:
                # A filter that starts in the future matches nothing; its range must stay valid.
                until = max(until, self._wanted.since)
            self._wanted = replace(self._wanted, until=until)
            self._is_bounded = True
        return self._wanted

    def _plan_ids(self, job_ids: list[str]) -> ReplayPlan:
        statuses = self._ledger.reader.statuses(job_ids)
        codes: Counter[str] = Counter()
        refused: dict[str, State | None] = {}
        for job_id in job_ids:
            status = statuses.get(job_id)
            if status is not None and status.state is State.FAILED:
                codes[status.error_code] += 1
            else:
                refused[job_id] = status and status.state
        self._job_ids = [job_id for job_id in job_ids if job_id not in refused]
        return _plan(codes, refused=refused)


def _plan(
    codes: Mapping[str, int],
    *,
    total: int | None = None,
    refused: Mapping[str, State | None] | None = None,
) -> ReplayPlan:
    ordered = sorted(codes.items(), key=lambda item: (-item[1], item[0]))
    return ReplayPlan(
        total=sum(codes.values()) if total is None else total,
        causes=[Cause(code, count, *explain_any(code)) for code, count in ordered],
        refused=refused or {},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempts:
    """Calls that are made again while Redis is away, until there are no more pauses."""

    stop: threading.Event
    pauses: Sequence[float]
    on_outage: Callable[[QueueUnavailable], object] | None

    def __call__(self, call: Callable[[], T]) -> T:
        for pause_seconds in self.pauses:
            try:
                return call()
            except QueueUnavailable as error:
                if self.on_outage is not None:
                    self.on_outage(error)
                if self.stop.wait(pause_seconds):
                    raise
        return call()
