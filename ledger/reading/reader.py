"""Read the ledger without changing jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from ...schemas import JobRecord, State
from ..audit import AuditEntry
from ..job_hash import to_int, to_state
from . import audit, campaigns, counts, failed_jobs, lanes, pauses, search, waiting
from .campaigns import Campaign, WatchedCampaign
from .counts import Counts, Minute
from .cursor import Cursor, iterate
from .index_page import IdPage, JobPage
from .job_filter import JobFilter
from .namespace import CHUNK, Namespace, chunks
from .pauses import PageRate, Pause
from .waiting import Backlog

_ALL = JobFilter()


class JobStatus(NamedTuple):
    """A job's state, and the error code of its latest attempt ("" if there is none)."""

    state: State
    error_code: str


class Reader:
    """Reads jobs, counts and lanes. Thread-safe.

    Methods for failed jobs ignore the `states` of their filter, and `since` and `until` bound when
    a job failed. They search for `text`, ignoring case, in a job's ids, error, payload, metadata
    and idempotency key.

    Every method may raise `QueueUnavailable`.

    Args:
        page_rate: messages per second of a page without its own rate; 0 means no limit.
    """

    def __init__(self, namespace: Namespace, page_rate: float) -> None:
        self._namespace = namespace
        self._page_rate = page_rate

    # Jobs by id.

    def get(self, job_id: str) -> JobRecord | None:
        """Return the job, or None if it does not exist."""
        return next(self._namespace.records([job_id]), None)

    def find_id(self, beginning: str) -> str:
        """Return the id of the only job whose id begins with `beginning`.

        A complete id needs one lookup. A shorter text, of 8 hexadecimal characters or more, scans
        all keys of the Redis database, in steps of less than 1 ms of the server's time.

        Raises:
            JobNotFound: no such job exists.
            AmbiguousJobId: several jobs match; `candidates` has at most 10 of them.
        """
        return search.find_id(self._namespace, beginning)

    def statuses(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the state and error code of the existing jobs among some ids."""
        found: dict[str, JobStatus] = {}
        for some in chunks(job_ids, CHUNK):
            pipeline = self._namespace.pipeline()
            for job_id in some:
                pipeline.hmget(self._namespace.key(f"job:{job_id}"), "state", "error_code")
            found |= {
                job_id: JobStatus(to_state(state), code or "")
                for job_id, (state, code) in zip(some, pipeline.execute(), strict=True)
                if state is not None
            }
        return found

    # Jobs in any state.

    def find(self, wanted: JobFilter, limit: int) -> list[JobRecord]:
        """Return at most `limit` jobs, the latest first.

        A filter with error codes but no state selects failed jobs.
        """
        return search.find(self._namespace, wanted, limit)

    # Failed jobs.

    def failed_page(
        self, wanted: JobFilter, *, text: str = "", after: Cursor | None = None, limit: int = 50
    ) -> JobPage:
        """Return at most `limit` failed jobs after a position, the latest first.

        If many jobs must be read, the result may have fewer jobs although there are more.
        """
        return failed_jobs.failed_page(self._namespace, wanted, text, after, limit)

    def failed_pages(
        self, wanted: JobFilter, *, text: str = "", limit: int = 500
    ) -> Iterator[JobPage]:
        """Yield all matching jobs, some at a time. They are read when the iteration reaches them.

        Jobs that fail during the iteration are not included.
        """
        return iterate(lambda after: self.failed_page(wanted, text=text, after=after, limit=limit))

    def failed_ids(
        self, wanted: JobFilter, *, text: str = "", after: Cursor | None = None, limit: int = 500
    ) -> IdPage:
        """Like `failed_page`, but return ids and error codes; without a text, no job is read."""
        if text:
            page = self.failed_page(wanted, text=text, after=after, limit=limit)
            return IdPage(
                ids=[record.job_id for record in page.records],
                values=[record.error_code or "" for record in page.records],
                after=page.after,
                scanned=page.scanned,
            )
        return failed_jobs.failed_ids(
            self._namespace,
            wanted,
            after,
            limit=limit,
            scan_limit=failed_jobs.SCAN_LIMIT,
            with_field="error_code",
        )

    def count_failed(self, wanted: JobFilter = _ALL) -> int | None:
        """Return how many jobs failed; None for a filter by code and page: no index has both."""
        return counts.count_failed(self._namespace, wanted)

    def count_by_error_code(self, wanted: JobFilter = _ALL, *, limit: int | None = None) -> Counts:
        """Return how many jobs failed with each error code, the most frequent first.

        Args:
            wanted: if it has pages, one field of each job is read; otherwise indexes are counted.
            limit: maximum number of jobs that are read (the latest), or of error codes that are
                counted. The result contains what was left out. None for an exact result.
        """
        return counts.count_by_error_code(self._namespace, wanted, limit)

    def count_by_page(self, wanted: JobFilter = _ALL, *, limit: int | None = None) -> Counts:
        """Return how many jobs failed on each page; jobs are read if `wanted` has error codes."""
        return counts.count_by_page(self._namespace, wanted, limit)

    def count_over_time(
        self, filters: Sequence[JobFilter], edges_ms: Sequence[int]
    ) -> list[list[int]]:
        """Return, for each filter, how many jobs failed between each two consecutive edges.

        A filter may have error codes or pages. If it has both, its pages are ignored. Its times
        are always ignored.
        """
        return counts.count_over_time(self._namespace, filters, edges_ms)

    def oldest_failed_ms(self, wanted: JobFilter = _ALL) -> int | None:
        """Return when the oldest matching job failed (ms since the epoch), or None.

        For a filter by code and page, only one of the two is used, so the result may be too early.
        """
        return counts.oldest_failed_ms(self._namespace, wanted)

    # The queue.

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state; sent and canceled jobs only while kept."""
        return counts.count_states(self._namespace)

    def throughput(self, minutes: int = 60) -> list[Minute]:
        """Return how many calls ended in each of the latest minutes (at most 60); oldest first."""
        return counts.throughput(self._namespace, minutes)

    def sent_since(self, job_id: str | None) -> tuple[int, str | None]:
        """Return how many jobs were sent after `job_id`, and the id of the latest.

        With None, or a job that is no longer kept, all kept jobs count.
        """
        return counts.sent_since(self._namespace, job_id)

    def waiting_page(
        self, state: State, *, after: Cursor | None = None, limit: int = 50
    ) -> JobPage:
        """Return at most `limit` RETRYING or SCHEDULED jobs, ordered by their due times."""
        return waiting.waiting_page(self._namespace, state, after, limit)

    def waiting_by_page(self, limit: int | None = 100) -> dict[str, int]:
        """Return how many jobs wait in each page's lane, the longest lane first."""
        sums = counts.most_first(lanes.waiting_by_page(self._namespace))
        return dict(islice(sums.items(), limit))

    def backlog(self) -> Backlog:
        """Return the number of overdue jobs and the age of the oldest ready job."""
        return waiting.backlog(self._namespace)

    def count_waiting(self, page_ids: Sequence[str]) -> dict[str, int]:
        """Return how many jobs wait in the lanes of some pages."""
        return lanes.count_waiting(self._namespace, page_ids)

    def jobs_ahead(self, record: JobRecord) -> int | None:
        """Return how many jobs of its page are served before a queued one.

        This is an estimate, because jobs that have failed and jobs of other campaigns take turns
        with it. None if it is not among the first 100,000 jobs of its lane.
        """
        if record.page_id is None:
            return None
        return lanes.jobs_ahead(self._namespace, record.job_id, record.page_id, record.campaign)

    # Pauses and rates.

    def pauses(self) -> list[Pause]:
        """Return all pauses: of all pages, of tokens, then of single pages.

        A page that is paused both by an operator and automatically has two pauses.
        """
        return pauses.pauses(self._namespace)

    def pauses_of(self, *page_ids: str) -> list[Pause]:
        """Return the pauses that apply to some pages.

        The order is: a pause of all pages, manual, automatic, and pauses of tokens.
        """
        return pauses.pauses_of(self._namespace, *page_ids)

    def pause_of_all(self) -> Pause | None:
        """Return the pause of all pages, or None if there is none. Waiting jobs are not counted."""
        return pauses.pause_of_all(self._namespace)

    def some_pauses(self, cursor: int = 0) -> tuple[list[Pause], int]:
        """Return the pauses of about a thousand pages, and the next cursor; 0 at the end.

        Waiting jobs are not counted.
        """
        return pauses.some_pauses(self._namespace, cursor)

    def rates(self) -> list[PageRate]:
        """Return the pages with their own rate."""
        return pauses.rates(self._namespace)

    # The audit.

    def audit(
        self,
        limit: int = 100,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[AuditEntry]:
        """Return at most `limit` operations of the last 90 days, the latest first.

        `since` and `until` (aware) bound when an operation began.
        """
        bounds = JobFilter(since=since, until=until)
        return audit.audit(self._namespace, limit, bounds.since_ms, bounds.until_ms)

    # Campaigns.

    def campaigns(self, limit: int | None = None) -> list[Campaign]:
        """Return at most `limit` campaigns without errors and pages, the last changed first."""
        return campaigns.campaigns(self._namespace, limit=limit)

    def campaign(self, name: str) -> Campaign | None:
        """Return a campaign with its errors and pages, or None if there is none."""
        return campaigns.campaign(self._namespace, name, self._page_rate)

    def watched_campaigns(self, cursor: int = 0) -> tuple[list[WatchedCampaign], int]:
        """Return about a hundred campaigns with rules, and the next cursor; 0 at the end."""
        return campaigns.watched_campaigns(self._namespace, cursor)

    def seconds_since_sweep(self) -> float | None:
        """Return the time since the latest sweep by any worker; None if there is none."""
        swept_ms = to_int(self._namespace.client.get(self._namespace.key("clock")))
        return None if swept_ms is None else max(0, self.now_ms() - swept_ms) / 1000

    def now_ms(self) -> int:
        """Return the time by the ledger's clock (ms since the epoch)."""
        return self._namespace.now_ms()
