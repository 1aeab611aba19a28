"""Looking at the ledger: jobs, counts, lanes. Changes no job."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import redis

from ..schemas import JobRecord, State
from .connection import server_time_ms, translated_errors
from .failure_counts import most_first
from .job_hash import to_int
from .scripts import Scripts
from .search import JobFilter, Search, ended_or_enqueued, time_bounds

_ALL = JobFilter()
#: The beginning of an id: shorter ones are too likely to be typed by mistake.
_ID_BEGINNING = re.compile("[0-9a-fA-F]{8,31}")
#: Keys that one step of a scan goes through: about 0.3 ms of the server's time.
_SCAN_COUNT = 1000
#: Ids that are named when a beginning is that of several.
_MAX_CANDIDATES = 10
#: Pauses that are read at once: about 1 ms of the server's time.
_PAUSES = 1000
#: Jobs read in one round trip.
_CHUNK = 500


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

    def __init__(self, client: redis.Redis, prefix: str, redis_url: str, scripts: Scripts) -> None:
        # redis-py types every answer as "this or an awaitable of this".
        self._client: Any = client
        self._prefix = prefix
        self._url = redis_url
        self._search = Search(client, prefix, scripts)

    def _key(self, name: str) -> str:
        return self._prefix + name

    def get(self, job_id: str) -> JobRecord | None:
        """Return the job, or None if there is none (any more)."""
        with translated_errors(self._url):
            return next(self._search.records([job_id]), None)

    def ids_beginning(self, text: str) -> list[str]:
        """Return the id that is `text`, else ids that begin with it: at most 10, in order.

        No index is ordered by id: one would cost memory and time with each job. All keys are
        scanned instead, in steps of less than 1 ms of the server's time.
        """
        with translated_errors(self._url):
            if self._client.exists(self._key(f"job:{text}")):
                return [text]
            if not _ID_BEGINNING.fullmatch(text):
                return []
            start = self._key("job:")
            pattern = re.sub(r"([\\*?\[\]^])", r"\\\1", start) + text.lower() + "*"
            found: set[str] = set()
            cursor = 0
            while True:
                cursor, keys = self._client.scan(cursor, match=pattern, count=_SCAN_COUNT)
                found.update(name[len(start) :] for name in keys)
                if cursor == 0 or len(found) > _MAX_CANDIDATES:
                    return sorted(found)[:_MAX_CANDIDATES]

    def find(self, wanted: JobFilter, limit: int) -> list[JobRecord]:
        """Return at most `limit` jobs, the latest first.

        A filter with error codes and no state means failed jobs.
        """
        if wanted.error_codes and not wanted.states:
            wanted = replace(wanted, states=(State.FAILED,))
        # By id, since the id of a job that moved on may still stand in an index it left.
        found: dict[str, JobRecord] = {}
        with translated_errors(self._url):
            for ids in self._search.sources(wanted):
                jobs = self._search.records(ids, chunk=limit)
                found |= {job.job_id: job for job in islice(filter(wanted.fits, jobs), limit)}
        return sorted(found.values(), key=ended_or_enqueued, reverse=True)[:limit]

    def iterate_failed(self, wanted: JobFilter) -> Iterator[JobRecord]:
        """Yield every failed job that fits, the latest first, reading a chunk at a time."""
        wanted = replace(wanted, states=(State.FAILED,))
        with translated_errors(self._url):
            for page in self._search.failed_pages(wanted, limit=_CHUNK):
                yield from filter(wanted.fits, self._search.records(page.ids))

    def count_errors(self, wanted: JobFilter = _ALL) -> dict[str, int]:
        """Return how many failed jobs that fit each error code has, the most frequent first."""
        with translated_errors(self._url):
            if wanted.page_ids:
                # No index has both; the codes are read where they are, and only they.
                pages = self._search.failed_pages(wanted, with_field="error_code")
                return most_first(Counter(code for page in pages for code in page.values))
            codes = wanted.error_codes or self._client.zrange(self._key("failed_codes"), 0, -1)
            pipeline = self._client.pipeline(transaction=False)
            for code in codes:
                pipeline.zcount(self._key(f"failed:{code}"), *time_bounds(wanted))
            return most_first(dict(zip(codes, pipeline.execute(), strict=True)))

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state; sent and cancelled ones while they are kept."""
        with translated_errors(self._url):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hgetall(self._key("counts"))
            pipeline.llen(self._key("sent"))
            pipeline.llen(self._key("cancelled"))
            pipeline.zcard(self._key("failed"))
            waiting, sent, cancelled, failed = pipeline.execute()
        counts = {state: max(0, to_int(waiting.get(state.value)) or 0) for state in State}
        return counts | {State.SENT: sent, State.CANCELLED: cancelled, State.FAILED: failed}

    def sent_since(self, job_id: str | None) -> tuple[int, str | None]:
        """Return how many jobs were sent after `job_id` was, and the one that was sent last.

        With None, or a job that is not kept any more, all that are kept count.
        """
        with translated_errors(self._url):
            pipeline = self._client.pipeline()
            pipeline.lindex(self._key("sent"), 0)
            pipeline.llen(self._key("sent"))
            if job_id is not None:
                pipeline.lpos(self._key("sent"), job_id)
            latest, kept, *place = pipeline.execute()
        return kept if place in ([], [None]) else place[0], latest

    def seconds_since_sweep(self) -> float | None:
        """Return how long ago a worker swept, as each does every second; None if none ever did."""
        with translated_errors(self._url):
            swept_ms = to_int(self._client.get(self._key("clock")))
            now_ms = server_time_ms(self._client)
        return None if swept_ms is None else max(0, now_ms - swept_ms) / 1000

    def waiting_by_page(self, limit: int = 100) -> dict[str, int]:
        """Return how many jobs wait in each page's lane, the longest first."""
        with translated_errors(self._url):
            pages = self._search.pages()
            pipeline = self._client.pipeline(transaction=False)
            for page in pages:
                pipeline.llen(self._key(f"ready:{page}"))
                pipeline.llen(self._key(f"urgent:{page}"))
            lengths = pipeline.execute()
        sums = {page: lengths[2 * i] + lengths[2 * i + 1] for i, page in enumerate(pages)}
        return dict(islice(most_first(sums).items(), limit))

    def pauses(self) -> list[Pause]:
        """Return the lanes that are paused now."""
        found: dict[str, Pause] = {}
        cursor = 0
        while True:
            some, cursor = self.some_pauses(cursor)
            # Redis may tell of one twice.
            found |= {pause.page_id: pause for pause in some}
            if cursor == 0:
                return list(found.values())

    def some_pauses(self, cursor: int = 0) -> tuple[list[Pause], int]:
        """Return about a thousand of the paused lanes, and where to go on; 0 is the beginning."""
        with translated_errors(self._url):
            cursor, some = self._client.hscan(self._key("pauses"), cursor, count=_PAUSES)
        pauses = (_pause(page_id, text) for page_id, text in some.items())
        return [pause for pause in pauses if pause], int(cursor)


def _pause(page_id: str, text: str) -> Pause | None:
    try:
        pause = json.loads(text)
        if pause["level"] < 1:
            return None
        return Pause(
            page_id=page_id,
            reason=str(pause["reason"]),
            error_code=pause.get("error_code") or None,
            until_ms=int(pause["until_ms"]),
            token_fingerprint=str(pause.get("token_fingerprint") or ""),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None  # not written by us
