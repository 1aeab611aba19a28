"""Jobs that wait: for their time, in pages; and how long those wait whose time has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis

from ..schemas import JobRecord, State
from .connection import server_time_ms, translated_errors
from .index_page import Cursor, Selection, read_ids
from .scripts import Scripts
from .search import Search

#: Jobs that one page may read: those in other states are left out.
_READ = 2000
#: Lanes whose oldest job is looked at: those that were not served for the longest time.
_LANES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPage:
    """Some waiting jobs, those due first coming first; `after` is None if nothing comes."""

    records: list[JobRecord]
    after: Cursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """What should have gone on: jobs that are due, and the age of the oldest in a lane (seconds).

    A job's age counts from its enqueueing or its `send_at`; it is 0 where no job waits.
    """

    due: int
    oldest_seconds: float


class Waiting:
    """The waiting jobs of one ledger."""

    def __init__(self, client: redis.Redis, prefix: str, redis_url: str, scripts: Scripts) -> None:
        # redis-py types every answer as "this or an awaitable of this".
        self._client: Any = client
        self._prefix = prefix
        self._url = redis_url
        self._scripts = scripts
        self._search = Search(client, prefix, scripts)

    def page(self, state: State, *, after: Cursor | None = None, limit: int = 50) -> WaitingPage:
        """Return at most `limit` jobs of a state, RETRYING or SCHEDULED, after a place.

        Raises:
            QueueUnavailable: Redis did not do it.
        """
        found: list[JobRecord] = []
        scanned = 0
        with translated_errors(self._url):
            while True:
                ids = read_ids(
                    self._scripts,
                    Selection(indexes=["due"]),
                    after=after,
                    desc=False,
                    limit=limit - len(found),
                    scan_limit=_READ - scanned,
                )
                scanned += ids.scanned
                found += (r for r in self._search.records(ids.ids) if r.state is state)
                after = ids.after
                if after is None or len(found) >= limit or scanned >= _READ:
                    return WaitingPage(records=found, after=after)

    def backlog(self) -> Backlog:
        """Return what should have gone on by now.

        Raises:
            QueueUnavailable: Redis did not do it.
        """
        with translated_errors(self._url):
            now_ms = server_time_ms(self._client)
            due = self._client.zcount(f"{self._prefix}due", "-inf", now_ms)
            pages = self._client.zrange(f"{self._prefix}lanes", 0, _LANES - 1)
            pipeline = self._client.pipeline(transaction=False)
            for page_id in pages:
                pipeline.lindex(f"{self._prefix}urgent:{page_id}", 0)
                pipeline.lindex(f"{self._prefix}ready:{page_id}", 0)
            heads = [head for head in pipeline.execute() if head is not None]
            pipeline = self._client.pipeline(transaction=False)
            for job_id in heads:
                pipeline.hmget(f"{self._prefix}job:{job_id}", "enqueued_at", "send_at")
            since = [_since_ms(times) for times in pipeline.execute()]
        ages_ms = [now_ms - ms for ms in since if ms is not None]
        return Backlog(due=int(due), oldest_seconds=max(0, *ages_ms, 0) / 1000)


def _since_ms(times: list[Any]) -> int | None:
    numbers = [int(time) for time in times if time and time.isascii() and time.isdecimal()]
    return max(numbers, default=None)
