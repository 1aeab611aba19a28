"""How many jobs failed, of what kind and when: counted by indexes, not by reading.

Where a question cannot be answered without reading, only so many are read, and the answer says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import redis

from ..schemas import State
from .connection import server_time_ms, translated_errors
from .index_page import Cursor, IdPage
from .job_hash import to_int
from .scripts import Scripts
from .search import JobFilter, Search, failed_indexes, time_bounds

#: Entries that one answer may scan, where it leaves some out.
SCAN_LIMIT = 20_000
#: Jobs whose error code is read to tell how those of one page failed.
_SAMPLE = 2000
#: Error codes, or pages, that are counted: those with the latest failures.
_NAMES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many failed jobs there are by name, the most frequent first.

    `sample` is the number of jobs that were looked at where that is not all of them, else None.
    """

    by_name: dict[str, int] = field(default_factory=dict)
    sample: int | None = None


class FailureCounts:
    """The counting half of `Failures`. Every method raises `QueueUnavailable`."""

    def __init__(self, client: redis.Redis, prefix: str, redis_url: str, scripts: Scripts) -> None:
        # redis-py types every answer as "this or an awaitable of this".
        self._client: Any = client
        self._prefix = prefix
        self._url = redis_url
        self._scripts = scripts
        self._search = Search(client, prefix, scripts)

    def states(self, job_ids: Sequence[str]) -> dict[State, int]:
        """Return how many of some jobs are in each state; those that are gone are left out."""
        pipeline = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hget(f"{self._prefix}job:{job_id}", "state")
        with translated_errors(self._url):
            found = Counter(pipeline.execute())
        return {state: found[state.value] for state in State if state.value in found}

    def error_codes(self, job_ids: Sequence[str]) -> dict[str, int]:
        """Return how many of some jobs failed with each error code; others are left out."""
        pipeline = self._client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(f"{self._prefix}job:{job_id}", "state", "error_code")
        with translated_errors(self._url):
            answers = pipeline.execute(raise_on_error=False)
        # An error stands for a key of another type.
        jobs = (answer for answer in answers if isinstance(answer, list))
        return most_first(
            Counter(code or "" for state, code in jobs if state == State.FAILED.value)
        )

    def count(self, wanted: JobFilter) -> int | None:
        """Return how many fit; None where only reading them all could tell."""
        if wanted.error_codes and wanted.page_ids:
            return None
        pipeline = self._client.pipeline(transaction=False)
        with translated_errors(self._url):
            for index in failed_indexes(wanted):
                pipeline.zcount(self._prefix + index, *time_bounds(wanted))
            return sum(map(int, pipeline.execute()))

    def oldest_ms(self, wanted: JobFilter) -> int | None:
        """Return when the oldest failed, in the indexes that the filter is read by; None: none."""
        earliest, latest = time_bounds(wanted)
        # Another client may have written times before the first, and after the last.
        bounds = (0 if wanted.since is None else earliest, latest)
        pipeline = self._client.pipeline(transaction=False)
        with translated_errors(self._url):
            for index in self._search.failed_selection(wanted).indexes:
                pipeline.zrangebyscore(self._prefix + index, *bounds, 0, 1, withscores=True)
            answers = pipeline.execute()
        times = (to_int(score) for entries in answers for _, score in entries)
        return min((ms for ms in times if ms is not None), default=None)

    def by_error_code(self, wanted: JobFilter) -> Counts:
        """Return how many failed with each error code."""
        if wanted.page_ids:
            return self._sampled(wanted, "error_code")
        return self._counted(wanted, wanted.error_codes, "failed_codes", "failed:")

    def by_page_id(self, wanted: JobFilter) -> Counts:
        """Return how many failed on each page."""
        if wanted.error_codes:
            return self._sampled(wanted, "page_id")
        return self._counted(wanted, wanted.page_ids, "failed_pages", "failed_on:")

    def over_time(self, filters: Sequence[JobFilter], edges_ms: Sequence[int]) -> list[list[int]]:
        """Return, for each filter, how many failed from each edge up to the next.

        A filter may have error codes or pages; of one with both, the pages are ignored, as its
        times are.
        """
        spans = list(pairwise(edges_ms))
        indexes = [failed_indexes(wanted) for wanted in filters]
        pipeline = self._client.pipeline(transaction=False)
        with translated_errors(self._url):
            for names in indexes:
                for start, end in spans:
                    for name in names:
                        pipeline.zcount(self._prefix + name, start, f"({end}")
            counts = iter(pipeline.execute())
        return [[sum(islice(counts, len(names))) for _ in spans] for names in indexes]

    def now_ms(self) -> int:
        """Return the time by the ledger's clock, which jobs fail by (ms since the epoch)."""
        with translated_errors(self._url):
            return server_time_ms(self._client)

    def _ids(
        self,
        wanted: JobFilter,
        after: Cursor | None,
        *,
        limit: int,
        scan_limit: int,
        with_field: str = "",
    ) -> IdPage:
        with translated_errors(self._url):
            return self._search.failed_page(
                wanted, after, limit=limit, scan_limit=scan_limit, with_field=with_field
            )

    def _counted(
        self, wanted: JobFilter, names: Sequence[str], names_key: str, prefix: str
    ) -> Counts:
        with translated_errors(self._url):
            names = names or self._client.zrevrange(self._prefix + names_key, 0, _NAMES - 1)
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.zcount(f"{self._prefix}{prefix}{name}", *time_bounds(wanted))
            counts = dict(zip(names, pipeline.execute(), strict=True))
        return Counts(by_name=most_first(counts))

    def _sampled(self, wanted: JobFilter, field_name: str) -> Counts:
        """Count by a field of the latest jobs."""
        page = self._ids(wanted, None, limit=_SAMPLE, scan_limit=SCAN_LIMIT, with_field=field_name)
        counts = Counter(name for name in page.values if name)
        return Counts(by_name=most_first(counts), sample=len(page.ids) if page.after else None)


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by name without those of 0, the most frequent first, then by name."""
    used = ((name, count) for name, count in counts.items() if count)
    return dict(sorted(used, key=lambda item: (-item[1], item[0])))
