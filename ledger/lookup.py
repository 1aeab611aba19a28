"""Looking at the ledger: jobs by id, by state, error code, page and time; counts. Changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import redis

from ..schemas import JobRecord, State
from .connection import translated_errors
from .job_hash import to_record

#: Jobs read in one round trip while searching.
_CHUNK = 500
#: States whose jobs stand in `due`.
_DUE = (State.SCHEDULED, State.SENDING, State.RETRYING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why and until when (milliseconds since the epoch) a page's lane waits."""

    page_id: str
    reason: str
    error_code: str | None
    until_ms: int
    token_fingerprint: str


class Lookup:
    """The reading half of the ledger. Every method raises `QueueUnavailable`."""

    def __init__(self, client: redis.Redis, prefix: str, redis_url: str) -> None:
        # redis-py types every answer as "this or an awaitable of this".
        self._client: Any = client
        self._prefix = prefix
        self._url = redis_url

    def _key(self, name: str) -> str:
        return self._prefix + name

    def get(self, job_id: str) -> JobRecord | None:
        """Return the job, or None if there is none (any more)."""
        with translated_errors(self._url):
            return next(iter(self._records([job_id])), None)

    def find(
        self,
        *,
        state: State | None = None,
        error_code: str | None = None,
        page_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Return jobs, the latest first; `since` and `until` bound when a job finished or, if it has
        not, when it was enqueued. An `error_code` alone means failed jobs.
        """
        if state is None and error_code is not None:
            state = State.FAILED
        wanted = _filter(state, error_code, page_id, since, until)
        with translated_errors(self._url):
            found: list[JobRecord] = []
            for ids in self._sources(state, error_code, page_id, since, until):
                taken = 0
                for record in self._records(ids):
                    if wanted(record):
                        found.append(record)
                        taken += 1
                        if taken >= limit:
                            break
            found.sort(key=lambda record: record.job_id)
            found.sort(key=_when, reverse=True)
            return found[:limit]

    def iterate_failed(
        self,
        *,
        error_code: str | None = None,
        page_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[JobRecord]:
        """Yield every failed job that fits, the latest first, reading a chunk at a time."""
        wanted = _filter(State.FAILED, error_code, page_id, since, until)
        with translated_errors(self._url):
            for ids in self._sources(State.FAILED, error_code, page_id, since, until):
                for record in self._records(ids):
                    if wanted(record):
                        yield record

    def count_errors(
        self, *, page_id: str | None = None, since: datetime | None = None
    ) -> dict[str, int]:
        """Return how many failed jobs each error code has, the most frequent first."""
        counts: dict[str, int] = {}
        with translated_errors(self._url):
            if page_id is not None:
                for record in self.iterate_failed(page_id=page_id, since=since):
                    code = record.error_code or ""
                    counts[code] = counts.get(code, 0) + 1
            else:
                codes = self._client.zrange(self._key("failed_codes"), 0, -1)
                pipeline = self._client.pipeline(transaction=False)
                for code in codes:
                    pipeline.zcount(self._key(f"failed:{code}"), _score(since, "-inf"), "+inf")
                counts = dict(zip(codes, pipeline.execute(), strict=True))
        counts = {code: count for code, count in counts.items() if count}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state; sent and cancelled ones while they are kept."""
        with translated_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hgetall(self._key("counts"))
            pipeline.llen(self._key("sent"))
            pipeline.llen(self._key("cancelled"))
            pipeline.zcard(self._key("failed"))
            waiting, sent, cancelled, failed = pipeline.execute()
        counts = {state: max(0, int(waiting.get(state.value, 0))) for state in State}
        return counts | {State.SENT: sent, State.CANCELLED: cancelled, State.FAILED: failed}

    def waiting_by_page(self, limit: int = 100) -> dict[str, int]:
        """Return how many jobs wait in each page's lane, the longest first."""
        with translated_errors(self._url):
            pages = self._client.zrange(self._key("lanes"), 0, -1)
            pipeline = self._client.pipeline(transaction=False)
            for page in pages:
                pipeline.llen(self._key(f"ready:{page}"))
                pipeline.llen(self._key(f"urgent:{page}"))
            lengths = pipeline.execute()
        sums = {page: lengths[2 * i] + lengths[2 * i + 1] for i, page in enumerate(pages)}
        longest = sorted(sums.items(), key=lambda item: (-item[1], item[0]))
        return dict(longest[:limit])

    def pauses(self) -> list[Pause]:
        """Return the lanes that are paused now."""
        with translated_errors(self._url):
            found = self._client.hgetall(self._key("pauses"))
        pauses = []
        for page_id, text in found.items():
            try:
                pause = json.loads(text)
                if pause["level"] < 1:
                    continue
                pauses.append(
                    Pause(
                        page_id=page_id,
                        reason=str(pause["reason"]),
                        error_code=pause.get("error_code") or None,
                        until_ms=int(pause["until_ms"]),
                        token_fingerprint=str(pause.get("token_fingerprint") or ""),
                    )
                )
            except (ValueError, TypeError, KeyError):
                continue  # not written by us
        return pauses

    def _records(self, ids: Iterable[str]) -> Iterator[JobRecord]:
        """Read the jobs behind `ids`, a chunk a round trip; those that are gone are left out."""
        for chunk in _chunks(ids, _CHUNK):
            pipeline = self._client.pipeline(transaction=False)
            for job_id in chunk:
                pipeline.hgetall(self._key(f"job:{job_id}"))
                pipeline.zscore(self._key("due"), job_id)
            answers = pipeline.execute(raise_on_error=False)
            for i, job_id in enumerate(chunk):
                job, due = answers[2 * i], answers[2 * i + 1]
                # An error stands for a key of another type: no job of ours.
                if isinstance(job, dict) and job:
                    yield to_record(job_id, job, due if isinstance(due, float) else None)

    def _sources(
        self,
        state: State | None,
        error_code: str | None,
        page_id: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Iterator[Iterator[str]]:
        """Yield the ids of each state that is asked for, the latest first where there is an order."""
        if state in (State.FAILED, None):
            yield self._failed(error_code, page_id, since, until)
        for listed in (State.SENT, State.CANCELLED):
            if state in (listed, None):
                yield self._list(listed.value)
        if state is None or state in _DUE:
            yield self._zset("due", "-inf", "+inf")
        if state in (State.QUEUED, None):
            pages = [page_id] if page_id is not None else self._client.zrange(
                self._key("lanes"), 0, -1
            )
            for page in pages:
                yield self._list(f"urgent:{page}")
                yield self._list(f"ready:{page}")

    def _failed(
        self,
        error_code: str | None,
        page_id: str | None,
        since: datetime | None,
        until: datetime | None,
    ) -> Iterator[str]:
        names = []
        if error_code is not None:
            names.append(f"failed:{error_code}")
        if page_id is not None:
            names.append(f"failed_on:{page_id}")
        # With two indexes, the shorter one has fewer jobs to read and leave out.
        names.sort(key=lambda name: cast("int", self._client.zcard(self._key(name))))
        return self._zset(
            names[0] if names else "failed", _score(since, "-inf"), _score(until, "+inf")
        )

    def _zset(self, name: str, lowest: float | str, highest: float | str) -> Iterator[str]:
        start = 0
        while True:
            ids = self._client.zrevrangebyscore(
                self._key(name), highest, lowest, start=start, num=_CHUNK
            )
            yield from ids
            if len(ids) < _CHUNK:
                return
            start += _CHUNK

    def _list(self, name: str) -> Iterator[str]:
        start = 0
        while True:
            ids = self._client.lrange(self._key(name), start, start + _CHUNK - 1)
            yield from ids
            if len(ids) < _CHUNK:
                return
            start += _CHUNK


def _when(record: JobRecord) -> float:
    time = record.finished_at or record.enqueued_at
    return time.timestamp() if time else 0.0


def _filter(
    state: State | None,
    error_code: str | None,
    page_id: str | None,
    since: datetime | None,
    until: datetime | None,
) -> Callable[[JobRecord], bool]:
    earliest = since.timestamp() if since else float("-inf")
    latest = until.timestamp() if until else float("inf")

    def wanted(record: JobRecord) -> bool:
        return (
            (state is None or record.state is state)
            and (error_code is None or record.error_code == error_code)
            and (page_id is None or record.page_id == page_id)
            and earliest <= _when(record) <= latest
        )

    return wanted


def _score(time: datetime | None, otherwise: str) -> float | str:
    return otherwise if time is None else round(time.timestamp() * 1000)


def _chunks(ids: Iterable[str], size: int) -> Iterator[list[str]]:
    chunk: list[str] = []
    for job_id in ids:
        chunk.append(job_id)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
