"""Jobs that wait until they are due, in pages; and for how long due ones have waited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...schemas import JobRecord, State
from .cursor import Cursor
from .failed_jobs import JobPage
from .index_page import Selection, read_ids
from .lanes import lists_by_page
from .namespace import Namespace

#: Jobs that one page may read: those in other states are left out.
_SCAN_LIMIT = 2000
#: Lanes whose oldest job is read: those that were not served for the longest time.
_LANES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Jobs that are due and not yet moved on, and the age of the oldest in a lane (seconds).

    A job's age counts from its enqueueing or its `send_at`; it is 0 where no job waits.
    """

    due: int
    oldest_seconds: float


def waiting_page(namespace: Namespace, state: State, after: Cursor | None, limit: int) -> JobPage:
    """Return at most `limit` waiting jobs; see `Reader.waiting_page`."""
    found: list[JobRecord] = []
    scanned = 0
    while True:
        ids = read_ids(
            namespace,
            Selection(indexes=["due"]),
            after=after,
            desc=False,
            limit=limit - len(found),
            scan_limit=_SCAN_LIMIT - scanned,
        )
        scanned += ids.scanned
        found += (record for record in namespace.records(ids.ids) if record.state is state)
        after = ids.after
        if after is None or len(found) >= limit or scanned >= _SCAN_LIMIT:
            return JobPage(records=found, after=after, scanned=scanned)


def backlog(namespace: Namespace) -> Backlog:
    """Return what should have been moved on or sent by now."""
    now_ms = namespace.now_ms()
    due = namespace.client.zcount(namespace.key("due"), "-inf", now_ms)
    pages = namespace.client.zrange(namespace.key("lanes"), 0, _LANES - 1)
    pipeline = namespace.pipeline()
    for _, names in lists_by_page(namespace, pages):
        for name in names:
            pipeline.lindex(namespace.key(name), 0)
    heads = [head for head in pipeline.execute() if head is not None]
    pipeline = namespace.pipeline()
    for job_id in heads:
        pipeline.hmget(namespace.key(f"job:{job_id}"), "enqueued_at", "send_at")
    since = [_since_ms(times) for times in pipeline.execute()]
    ages_ms = [now_ms - ms for ms in since if ms is not None]
    return Backlog(due=int(due), oldest_seconds=max(0, *ages_ms, 0) / 1000)


def _since_ms(times: list[Any]) -> int | None:
    numbers = [int(time) for time in times if time and time.isascii() and time.isdecimal()]
    return max(numbers, default=None)
