"""Searching the ledger: which index answers a question, and reading the jobs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis

from ..schemas import JobRecord, State
from .job_hash import to_record
from .latest_queued import latest_queued
from .scripts import Scripts

#: Entries of an index, or jobs, read in one round trip.
_CHUNK = 500
#: Lanes read in one round trip.
_LANES = 2000
#: States whose jobs stand in `due`.
_DUE = (State.SCHEDULED, State.SENDING, State.RETRYING)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted; None is no condition.

    `since` and `until` (aware, both included) bound when a job finished or, if it has not, when it
    was enqueued.

    Raises:
        ValueError: `since` or `until` has no time zone, or `since` is after `until`.
    """

    state: State | None = None
    error_code: str | None = None
    page_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name, time in (("since", self.since), ("until", self.until)):
            if time is not None and time.utcoffset() is None:
                raise ValueError(f"{name} has no time zone: {time}; pass an aware datetime")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(
                f"since ({self.since}) is after until ({self.until}): no time is between them"
            )

    def fits(self, record: JobRecord) -> bool:
        """Return whether `record` is wanted."""
        when = ended_or_enqueued(record)
        return (
            self.state in (None, record.state)
            and self.error_code in (None, record.error_code)
            and self.page_id in (None, record.page_id)
            and (self.since is None or when >= self.since.timestamp())
            and (self.until is None or when <= self.until.timestamp())
        )


def ended_or_enqueued(record: JobRecord) -> float:
    """Return when the job finished or, if it has not, was enqueued; seconds since the epoch."""
    time = record.finished_at or record.enqueued_at
    return time.timestamp() if time else 0.0


class Search:
    """Finds the ids that may fit a filter, from the shortest index, and reads their jobs."""

    def __init__(self, client: redis.Redis, prefix: str, scripts: Scripts) -> None:
        # redis-py types every answer as "this or an awaitable of this".
        self._client: Any = client
        self._prefix = prefix
        self._scripts = scripts

    def records(self, ids: Iterable[str]) -> Iterator[JobRecord]:
        """Read the jobs behind `ids`, a chunk a round trip; those that are gone are left out."""
        for chunk in _chunks(ids):
            pipeline = self._client.pipeline(transaction=False)
            for job_id in chunk:
                pipeline.hgetall(f"{self._prefix}job:{job_id}")
                pipeline.zscore(f"{self._prefix}due", job_id)
            answers = pipeline.execute(raise_on_error=False)
            for i, job_id in enumerate(chunk):
                job, due = answers[2 * i], answers[2 * i + 1]
                # An error stands for a key of another type: no job of ours.
                if isinstance(job, dict) and job:
                    yield to_record(job_id, job, due if isinstance(due, float) else None)

    def sources(self, wanted: JobFilter) -> Iterator[Iterator[str]]:
        """Yield, for each state asked for, ids of jobs, the latest first if there is an order."""
        state = wanted.state
        if state in (State.FAILED, None):
            yield self._failed(wanted)
        for listed in (State.SENT, State.CANCELLED):
            if state in (listed, None):
                yield self._list(listed.value)
        if state is None or state in _DUE:
            yield self._zset("due")
        if state in (State.QUEUED, None):
            pages = [wanted.page_id] if wanted.page_id is not None else self.pages()
            yield latest_queued(self._scripts, pages)

    def pages(self) -> list[str]:
        """Return the pages that have a lane, in no order; some thousand a round trip."""
        lanes = self._client.zscan_iter(f"{self._prefix}lanes", count=_LANES)
        # Redis may tell of one twice.
        return list({page_id: None for page_id, _ in lanes})

    def indexes_by_size(self, wanted: JobFilter) -> list[str]:
        """Return `failed_indexes`; the shorter first: it has fewer jobs to read and leave out."""
        names = failed_indexes(wanted)
        if len(names) > 1:
            names.sort(key=lambda name: int(self._client.zcard(self._prefix + name)))
        return names

    def _failed(self, wanted: JobFilter) -> Iterator[str]:
        return self._zset(self.indexes_by_size(wanted)[0], *time_bounds(wanted))

    def _zset(
        self, name: str, lowest: float | str = "-inf", highest: float | str = "+inf"
    ) -> Iterator[str]:
        start = 0
        while True:
            ids = self._client.zrevrangebyscore(
                self._prefix + name, highest, lowest, start=start, num=_CHUNK
            )
            yield from ids
            if len(ids) < _CHUNK:
                return
            start += _CHUNK

    def _list(self, name: str) -> Iterator[str]:
        start = 0
        while True:
            ids = self._client.lrange(self._prefix + name, start, start + _CHUNK - 1)
            yield from ids
            if len(ids) < _CHUNK:
                return
            start += _CHUNK


def failed_indexes(wanted: JobFilter) -> list[str]:
    """Return the names of the indexes that every failed job that fits is in."""
    names = []
    if wanted.error_code is not None:
        names.append(f"failed:{wanted.error_code}")
    if wanted.page_id is not None:
        names.append(f"failed_on:{wanted.page_id}")
    return names or ["failed"]


def time_bounds(wanted: JobFilter) -> tuple[float | str, float | str]:
    """Return the bounds of a filter in an index by time (ms since the epoch, or infinite)."""
    return _score(wanted.since, "-inf"), _score(wanted.until, "+inf")


def _score(time: datetime | None, otherwise: str) -> float | str:
    return otherwise if time is None else round(time.timestamp() * 1000)


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for job_id in ids:
        chunk.append(job_id)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
