"""How many jobs failed, of what kind and when: counted by indexes, not by reading.

Where a question cannot be answered without reading, only so many are read, and the answer says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import redis

from ..schemas import State
from .connection import server_time_ms, translated_errors
from .index_page import IdPage, Place, read_ids
from .job_hash import to_int
from .scripts import Scripts
from .search import JobFilter, Search, failed_indexes, time_bounds

#: Entries of an index that one answer may look at, where it leaves some out.
LOOK_AT = 20_000
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
            found = Counter(pipeline.execute(raise_on_error=False))
        return {state: found[state.value] for state in State if state.value in found}

    def count(self, wanted: JobFilter) -> int | None:
        """Return how many fit; None where only reading them all could tell."""
        with translated_errors(self._url):
            index, *others = self._search.indexes_by_size(wanted)
            if others:
                return None
            return int(self._client.zcount(self._prefix + index, *time_bounds(wanted)))

    def oldest_ms(self, wanted: JobFilter) -> int | None:
        """Return when the oldest failed, of those that one index of the filter has; None: none."""
        with translated_errors(self._url):
            index = self._prefix + self._search.indexes_by_size(wanted)[0]
            earliest, latest = time_bounds(wanted)
            # Other hands may have written times before the first, and after the last.
            first = self._client.zrangebyscore(
                index, 0 if wanted.since is None else earliest, latest, 0, 1, withscores=True
            )
        return to_int(first[0][1]) if first else None

    def by_error_code(self, wanted: JobFilter) -> Counts:
        """Return how many failed with each error code."""
        return self._by(wanted, "error_code", wanted.error_code, "failed_codes", "failed:")

    def by_page_id(self, wanted: JobFilter) -> Counts:
        """Return how many failed on each page."""
        return self._by(wanted, "page_id", wanted.page_id, "failed_pages", "failed_on:")

    def over_time(self, filters: Sequence[JobFilter], edges_ms: Sequence[int]) -> list[list[int]]:
        """Return, for each filter, how many failed from each edge up to the next.

        A filter may have an error code or a page, not both; its own times are left aside.
        """
        pipeline = self._client.pipeline(transaction=False)
        with translated_errors(self._url):
            for wanted in filters:
                index = self._prefix + failed_indexes(wanted)[0]
                for start, end in pairwise(edges_ms):
                    pipeline.zcount(index, start, f"({end}")
            counts = pipeline.execute()
        buckets = len(edges_ms) - 1
        return [counts[i * buckets : (i + 1) * buckets] for i in range(len(filters))]

    def now_ms(self) -> int:
        """Return the time by the ledger's clock, which jobs fail by (ms since the epoch)."""
        with translated_errors(self._url):
            return server_time_ms(self._client)

    def _ids(self, wanted: JobFilter, after: Place | None, *, limit: int, budget: int) -> IdPage:
        earliest, latest = time_bounds(wanted)
        return read_ids(
            self._scripts,
            self._search.indexes_by_size(wanted),
            earliest_ms=earliest,
            latest_ms=latest,
            after=after,
            limit=limit,
            budget=budget,
        )

    def _by(
        self, wanted: JobFilter, field_name: str, only: str | None, names_key: str, prefix: str
    ) -> Counts:
        if only is not None:
            return self._alone(wanted, only)
        if failed_indexes(wanted) != ["failed"]:
            return self._sampled(wanted, field_name)
        return self._counted(wanted, names_key, prefix)

    def _counted(self, wanted: JobFilter, names_key: str, prefix: str) -> Counts:
        with translated_errors(self._url):
            names = self._client.zrevrange(self._prefix + names_key, 0, _NAMES - 1)
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.zcount(f"{self._prefix}{prefix}{name}", *time_bounds(wanted))
            counts = dict(zip(names, pipeline.execute(), strict=True))
        return Counts(by_name=most_first(counts))

    def _alone(self, wanted: JobFilter, name: str) -> Counts:
        """Count the one name that a filter leaves."""
        count, sample = self.count(wanted), None
        if count is None:
            with translated_errors(self._url):
                page = self._ids(wanted, None, limit=_SAMPLE, budget=LOOK_AT)
            count = len(page.ids)
            sample = count if page.after else None
        return Counts(by_name=most_first({name: count}), sample=sample)

    def _sampled(self, wanted: JobFilter, field_name: str) -> Counts:
        """Count by what the latest jobs say of themselves."""
        with translated_errors(self._url):
            page = self._ids(wanted, None, limit=_SAMPLE, budget=LOOK_AT)
            pipeline = self._client.pipeline(transaction=False)
            for job_id in page.ids:
                pipeline.hget(f"{self._prefix}job:{job_id}", field_name)
            names = pipeline.execute(raise_on_error=False)
        counts = Counter(name for name in names if isinstance(name, str))
        return Counts(by_name=most_first(counts), sample=len(page.ids) if page.after else None)


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by name without those of 0, the most frequent first, then by name."""
    used = ((name, count) for name, count in counts.items() if count)
    return dict(sorted(used, key=lambda item: (-item[1], item[0])))
