"""The one way to read the ledger. Changes no job."""

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
from .failed_jobs import JobPage
from .index_page import IdPage
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
    """Reads jobs, counts and lanes. Safe to share between threads.

    Where a method is about failed jobs, the `states` of its filter are ignored, `since` and `until`
    bound when a job failed, and a `text` is searched for, ignoring case, in a job's ids, error,
    payload, metadata and idempotency key.

    Every method raises `QueueUnavailable`.

    Args:
        page_rate: messages per second of a page that has no rate of its own; 0 is no limit.
    """

    def __init__(self, namespace: Namespace, page_rate: float) -> None:
        self._namespace = namespace
        self._page_rate = page_rate

    # One job, or named ones.

    def get(self, job_id: str) -> JobRecord | None:
        """Return the job, or None if there is none (any more)."""
        return next(self._namespace.records([job_id]), None)

    def find_id(self, beginning: str) -> str:
        """Return the id of the one job whose id begins with `beginning`.

        A whole id costs one look-up. A shorter text, of 8 hexadecimal characters or more, scans all
        keys of the Redis database, in steps of less than 1 ms of the server's time.

        Raises:
            JobNotFound: there is no such job (any more).
            AmbiguousJobId: there are several; its `candidates` are at most 10 of them.
        """
        return search.find_id(self._namespace, beginning)

    def statuses(self, job_ids: Sequence[str]) -> dict[str, JobStatus]:
        """Return the state and error code of some jobs; those that are gone are left out."""
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

        A filter with error codes and no state means failed jobs.
        """
        return search.find(self._namespace, wanted, limit)

    # Failed jobs.

    def failed_page(
        self, wanted: JobFilter, *, text: str = "", after: Cursor | None = None, limit: int = 50
    ) -> JobPage:
        """Return at most `limit` failed jobs after a position, the latest first.

        A page has fewer, and a next page, where many jobs have to be read for it.
        """
        return failed_jobs.failed_page(self._namespace, wanted, text, after, limit)

    def failed_pages(
        self, wanted: JobFilter, *, text: str = "", limit: int = 500
    ) -> Iterator[JobPage]:
        """Yield all that fit, page by page, each read when it is asked for.

        What fails meanwhile comes before the first page, and is not among them.
        """
        return iterate(lambda after: self.failed_page(wanted, text=text, after=after, limit=limit))

    def failed_ids(
        self, wanted: JobFilter, *, text: str = "", after: Cursor | None = None, limit: int = 500
    ) -> IdPage:
        """Return what `failed_page` does as ids and error codes; without a text, no job is read."""
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
        """Return how many failed; None for a filter by code and page: no index has both."""
        return counts.count_failed(self._namespace, wanted)

    def count_by_error_code(self, wanted: JobFilter = _ALL, *, limit: int | None = None) -> Counts:
        """Return how many failed with each error code, the most frequent first.

        Args:
            wanted: if it has pages, one field of each job is read; otherwise indexes are counted.
            limit: maximum number of jobs read, the latest ones, or of error codes counted. The
                answer says what was left out. None for an exact answer.
        """
        return counts.count_by_error_code(self._namespace, wanted, limit)

    def count_by_page(self, wanted: JobFilter = _ALL, *, limit: int | None = None) -> Counts:
        """Return how many failed on each page; jobs are read if `wanted` has error codes."""
        return counts.count_by_page(self._namespace, wanted, limit)

    def count_over_time(
        self, filters: Sequence[JobFilter], edges_ms: Sequence[int]
    ) -> list[list[int]]:
        """Return, for each filter, how many failed from each edge up to the next.

        A filter may have error codes or pages; of one with both, the pages are ignored, as its
        times are.
        """
        return counts.count_over_time(self._namespace, filters, edges_ms)

    def oldest_failed_ms(self, wanted: JobFilter = _ALL) -> int | None:
        """Return when the oldest failed (ms since the epoch), or None if there is none.

        A filter by code and page is read by one of the two, so the answer may be too early.
        """
        return counts.oldest_failed_ms(self._namespace, wanted)

    # The queue.

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state; sent and canceled ones while they are kept."""
        return counts.count_states(self._namespace)

    def throughput(self, minutes: int = 60) -> list[Minute]:
        """Return how many calls ended in each of the latest minutes (at most 60); oldest first."""
        return counts.throughput(self._namespace, minutes)

    def sent_since(self, job_id: str | None) -> tuple[int, str | None]:
        """Return how many jobs were sent after `job_id` was, and the one that was sent last.

        With None, or a job that is not kept any more, all that are kept count.
        """
        return counts.sent_since(self._namespace, job_id)

    def waiting_page(
        self, state: State, *, after: Cursor | None = None, limit: int = 50
    ) -> JobPage:
        """Return at most `limit` jobs of a state, RETRYING or SCHEDULED; those due first first."""
        return waiting.waiting_page(self._namespace, state, after, limit)

    def waiting_by_page(self, limit: int | None = 100) -> dict[str, int]:
        """Return how many jobs wait in each page's lane, the longest first."""
        sums = counts.most_first(lanes.waiting_by_page(self._namespace))
        return dict(islice(sums.items(), limit))

    def backlog(self) -> Backlog:
        """Return what should have been moved on or sent by now."""
        return waiting.backlog(self._namespace)

    def count_waiting(self, page_ids: Sequence[str]) -> dict[str, int]:
        """Return how many jobs wait in the lanes of some pages."""
        return lanes.count_waiting(self._namespace, page_ids)

    def jobs_ahead(self, record: JobRecord) -> int | None:
        """Return how many jobs of its page are served before a queued one.

        Jobs that have failed and jobs of other campaigns take turns with it, so it is an estimate.
        None if it is not among the first 100,000 of its lane.
        """
        if record.page_id is None:
            return None
        return lanes.jobs_ahead(self._namespace, record.job_id, record.page_id, record.campaign)

    # Pauses and rates.

    def pauses(self) -> list[Pause]:
        """Return why pages wait: a pause of all pages, those of tokens, then those of single pages.

        A page that is paused both by an operator and automatically has two.
        """
        return pauses.pauses(self._namespace)

    def pauses_of(self, *page_ids: str) -> list[Pause]:
        """Return what holds up some pages.

        In this order: a pause of all pages, manual ones, automatic ones, those of tokens.
        """
        return pauses.pauses_of(self._namespace, *page_ids)

    def pause_of_all(self) -> Pause | None:
        """Return the pause of all pages, or None if there is none. Waiting jobs are not counted."""
        return pauses.pause_of_all(self._namespace)

    def some_pauses(self, cursor: int = 0) -> tuple[list[Pause], int]:
        """Return the pauses of about a thousand pages, and where to continue; 0: the beginning.

        Waiting jobs are not counted.
        """
        return pauses.some_pauses(self._namespace, cursor)

    def rates(self) -> list[PageRate]:
        """Return the pages that have a rate of their own."""
        return pauses.rates(self._namespace)

    # What operators did.

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
        """Return at most `limit` campaigns, those that changed last first.

        They are without errors and pages.
        """
        return campaigns.campaigns(self._namespace, limit=limit)

    def campaign(self, name: str) -> Campaign | None:
        """Return a campaign with its errors and pages, or None if there is none."""
        return campaigns.campaign(self._namespace, name, self._page_rate)

    def watched_campaigns(self, cursor: int = 0) -> tuple[list[WatchedCampaign], int]:
        """Return about a hundred campaigns with rules, and where to continue; 0: the beginning."""
        return campaigns.watched_campaigns(self._namespace, cursor)

    def seconds_since_sweep(self) -> float | None:
        """Return how long ago a worker swept, as each does every second; None if none ever did."""
        swept_ms = to_int(self._namespace.client.get(self._namespace.key("clock")))
        return None if swept_ms is None else max(0, self.now_ms() - swept_ms) / 1000

    def now_ms(self) -> int:
        """Return the time by the ledger's clock, which jobs fail by (ms since the epoch)."""
        return self._namespace.now_ms()
