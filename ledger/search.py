"""Searching the ledger: which index answers a question, and reading the jobs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import redis

from ..schemas import JobRecord, State
from .index_page import Cursor, IdPage, Selection, read_ids
from .job_hash import to_record
from .latest_queued import latest_queued
from .scripts import Scripts

#: Entries of an index, or jobs, read in one round trip.
_CHUNK = 500
#: Lanes read in one round trip.
_LANES = 2000
#: Values of one field of a filter: each is an index that a script merges.
MAX_VALUES = 100
#: Ids of an index read before they are handed on, to be looked up or counted.
_IDS = 2000
#: States whose jobs stand in `due`.
_DUE = (State.SCHEDULED, State.SENDING, State.RETRYING)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted. Several values of one field mean any of them; none is no condition.

    `since` and `until` (aware, both included) bound when a job finished or, if it has not, when it
    was enqueued.

    Raises:
        ValueError: `since` or `until` has no time zone, `since` is after `until`, or a field has
            more than `MAX_VALUES` values.
    """

    states: tuple[State, ...] = ()
    error_codes: tuple[str, ...] = ()
    page_ids: tuple[str, ...] = ()
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
        for name in ("states", "error_codes", "page_ids"):
            # A repeated value is one value.
            values = tuple(dict.fromkeys(getattr(self, name)))
            if len(values) > MAX_VALUES:
                raise ValueError(f"{name} has {len(values)} values; at most {MAX_VALUES} can be")
            object.__setattr__(self, name, values)

    @property
    def is_empty(self) -> bool:
        """Whether every job is wanted."""
        return self == JobFilter()

    def fits(self, record: JobRecord) -> bool:
        """Return whether `record` is wanted."""
        when = ended_or_enqueued(record)
        return (
            (not self.states or record.state in self.states)
            and (not self.error_codes or record.error_code in self.error_codes)
            and (not self.page_ids or record.page_id in self.page_ids)
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

    def records(self, ids: Iterable[str], *, chunk: int = _CHUNK) -> Iterator[JobRecord]:
        """Read the jobs behind `ids`, `chunk` per round trip; those that are gone are left out."""
        for some in _chunks(ids, min(chunk, _CHUNK)):
            pipeline = self._client.pipeline(transaction=False)
            for job_id in some:
                pipeline.hgetall(f"{self._prefix}job:{job_id}")
                pipeline.zscore(f"{self._prefix}due", job_id)
            answers = pipeline.execute()
            for i, job_id in enumerate(some):
                job, due = answers[2 * i], answers[2 * i + 1]
                if job:
                    yield to_record(job_id, job, due)

    def sources(self, wanted: JobFilter) -> Iterator[Iterator[str]]:
        """Yield, for each wanted state, ids of jobs, the latest first if there is an order."""
        states = wanted.states or tuple(State)
        if State.FAILED in states:
            yield (
                job_id for page in self.failed_pages(wanted, limit=_CHUNK) for job_id in page.ids
            )
        for listed in (State.SENT, State.CANCELLED):
            if listed in states:
                yield self._list(listed.value)
        if not set(_DUE).isdisjoint(states):
            yield self._due(wanted)
        if State.QUEUED in states:
            yield latest_queued(self._scripts, wanted.page_ids or self.pages())

    def pages(self) -> list[str]:
        """Return the pages that have a lane, in no order; some thousand a round trip."""
        lanes = self._client.zscan_iter(f"{self._prefix}lanes", count=_LANES)
        # Redis may tell of one twice.
        return list({page_id: None for page_id, _ in lanes})

    def failed_page(
        self,
        wanted: JobFilter,
        after: Cursor | None,
        *,
        limit: int,
        scan_limit: int = _IDS,
        with_field: str = "",
    ) -> IdPage:
        """Return ids of failed jobs that fit, the latest first, and a field of each if named."""
        earliest, latest = time_bounds(wanted)
        return read_ids(
            self._scripts,
            self.failed_selection(wanted),
            earliest_ms=earliest,
            latest_ms=latest,
            after=after,
            limit=limit,
            scan_limit=scan_limit,
            with_field=with_field,
        )

    def failed_pages(
        self, wanted: JobFilter, *, limit: int = _IDS, with_field: str = ""
    ) -> Iterator[IdPage]:
        """Yield `failed_page` after `failed_page` until the end."""
        after: Cursor | None = None
        while True:
            page = self.failed_page(wanted, after, limit=limit, with_field=with_field)
            yield page
            if page.after is None:
                return
            after = page.after

    def failed_selection(self, wanted: JobFilter) -> Selection:
        """Return the shortest indexes that have every failed job that fits, and what to leave out.

        The time bounds of `wanted` are not part of it.
        """
        by_code, by_page = _code_indexes(wanted), _page_indexes(wanted)
        if not (by_code and by_page):
            return Selection(indexes=by_code or by_page or ["failed"])
        if self._size(by_code) <= self._size(by_page):
            return Selection(indexes=by_code, filtered_field="page_id", values=wanted.page_ids)
        return Selection(indexes=by_page, filtered_field="error_code", values=wanted.error_codes)

    def _size(self, indexes: Iterable[str]) -> int:
        pipeline = self._client.pipeline(transaction=False)
        for name in indexes:
            pipeline.zcard(self._prefix + name)
        return sum(pipeline.execute())

    def _due(self, wanted: JobFilter) -> Iterator[str]:
        selection = Selection(indexes=["due"])
        if wanted.page_ids:
            selection = Selection(indexes=["due"], filtered_field="page_id", values=wanted.page_ids)
        after: Cursor | None = None
        while True:
            page = read_ids(self._scripts, selection, after=after, limit=_CHUNK, scan_limit=_IDS)
            yield from page.ids
            if page.after is None:
                return
            after = page.after

    def _list(self, name: str) -> Iterator[str]:
        # A list has no cursor, but skips 8 KB of it per step: a range in the middle of a million
        # ids takes Redis less than 0.1 ms.
        start = 0
        while True:
            ids = self._client.lrange(self._prefix + name, start, start + _CHUNK - 1)
            yield from ids
            if len(ids) < _CHUNK:
                return
            start += _CHUNK


def failed_indexes(wanted: JobFilter) -> list[str]:
    """Return indexes that, merged, have every failed job that fits; by error code if it has any."""
    return _code_indexes(wanted) or _page_indexes(wanted) or ["failed"]


def _code_indexes(wanted: JobFilter) -> list[str]:
    return [f"failed:{error_code}" for error_code in wanted.error_codes]


def _page_indexes(wanted: JobFilter) -> list[str]:
    return [f"failed_on:{page_id}" for page_id in wanted.page_ids]


def time_bounds(wanted: JobFilter) -> tuple[float | str, float | str]:
    """Return the bounds of a filter in an index by time (ms since the epoch, or infinite)."""
    return _score(wanted.since, "-inf"), _score(wanted.until, "+inf")


def _score(time: datetime | None, otherwise: str) -> float | str:
    return otherwise if time is None else round(time.timestamp() * 1000)


def _chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, size)):
        yield chunk
