"""Pages of jobs that are not due yet, and the backlog of jobs that are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ...schemas import State
from .cursor import Cursor
from .index_page import JobPage, Selection, read_ids, read_jobs
from .lanes import lists_by_page
from .namespace import Namespace

#: Maximum number of jobs that one page reads. Jobs in other states are skipped.
_SCAN_LIMIT = 2000
#: Number of lanes whose oldest job is read: those that have not been served for the longest time.
_LANES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The number of due jobs that are not queued yet, and the age of the oldest queued job.

    A job's age counts from when it was enqueued, or from its `send_at`. It is 0 if no job waits.
    """

    due: int
    oldest_seconds: float


def waiting_page(namespace: Namespace, state: State, after: Cursor | None, limit: int) -> JobPage:
    """Return at most `limit` waiting jobs; see `Reader.waiting_page`."""
    return read_jobs(
        namespace,
        partial(read_ids, namespace, Selection(indexes=["due"]), desc=False),
        lambda record: record.state is state,
        after=after,
        limit=limit,
        scan_limit=_SCAN_LIMIT,
    )


def backlog(namespace: Namespace) -> Backlog:
    """Return the number of overdue jobs and the age of the oldest queued job."""
    now_ms = namespace.now_ms()
    due = namespace.client.zcount(namespace.key("due"), "-inf", now_ms)
    pages = namespace.client.zrange(namespace.key("lanes"), 0, _LANES - 1)
    pipeline = namespace.pipeline()
    for _, names in lists_by_page(namespace, pages):
        for name in names:
            pipeline.lindex(namespace.key(name), 0)
    first_ids = [job_id for job_id in pipeline.execute() if job_id is not None]
    pipeline = namespace.pipeline()
    for job_id in first_ids:
        pipeline.hmget(namespace.key(f"job:{job_id}"), "enqueued_at", "send_at")
    since = [_since_ms(times) for times in pipeline.execute()]
    ages_ms = [now_ms - ms for ms in since if ms is not None]
    return Backlog(due=int(due), oldest_seconds=max(0, *ages_ms, 0) / 1000)


def _since_ms(times: list[Any]) -> int | None:
    numbers = [int(time) for time in times if time and time.isascii() and time.isdecimal()]
    return max(numbers, default=None)
