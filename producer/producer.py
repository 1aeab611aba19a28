"""What a web app holds: enqueue, look up, replay, cancel, pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice, takewhile
from typing import Any, Literal, TypeVar

from ..broker import Doorbell
from ..ledger import AuditEntry, Campaign, JobFilter, Ledger, Lifted, Pause, Via, local_user
from ..schemas import (
    CampaignNotFound,
    IdempotencyConflict,
    JobNotFound,
    JobRecord,
    MessageBody,
    MessageRow,
    QueueUnavailable,
    Settings,
    State,
    parse_new_job,
)
from ..schemas.new_job import with_default_key
from .batch import EnqueueReport, valid_rows
from .bulk_replay import Replay
from .cancellation import Cancellation, CancelReport

T = TypeVar("T")

#: Jobs stored in one script call; enough that its fixed cost does not show.
BATCH_SIZE = 500
#: For connecting to Redis and for its answer, each: a web request is never held for 2 seconds.
_TIMEOUT_SECONDS = 0.7

#: What `enqueue` takes its options to be where they are left out.
_DEFAULTS: Mapping[str, Any] = {
    "idempotency_key": None,
    "send_at": None,
    "expires_at": None,
    "delivery": "at_least_once",
    "urgent": False,
    "campaign": None,
}


class Producer:
    """Enqueues into, and looks at, the ledger that `settings` name. Safe to share between threads.

    Every method raises `QueueUnavailable` within 2 seconds when Redis is away or does not answer.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        ledger: Ledger | None = None,
        doorbell: Doorbell | None = None,
    ) -> None:
        self.settings = settings or Settings.from_environment()
        self._ledger = ledger or Ledger(
            self.settings,
            timeout_seconds=_TIMEOUT_SECONDS,
            ring=(doorbell or Doorbell(self.settings)).ring,
        )

    def enqueue(
        self,
        job: MessageBody | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        send_at: datetime | None = None,
        expires_at: datetime | None = None,
        delivery: Literal["at_least_once", "at_most_once"] = "at_least_once",
        urgent: bool = False,
        campaign: str | None = None,
    ) -> str:
        """Enqueue one message and return its job id.

        Args:
            job: the API's own body; `messaging_type` may be left out.
            idempotency_key: all calls with the same key make one job, for as long as that job is
                kept. Later calls must have the same body and return the same id. Their other
                options are ignored: the first call's apply.
            send_at: earliest time to send (aware).
            expires_at: latest time to send (aware); `EXPIRES_SECONDS` from now or `send_at` if
                left out.
            delivery: what to do when it is unknown whether a POST was processed.
            urgent: send before the other jobs of its page.
            campaign: name of the campaign that the message belongs to, 1 to 64 characters of
                `A-Za-z0-9._-`. The page's other messages go before those of campaigns. Without an
                idempotency key, the message gets `campaign/page_id/recipient_id/payload_id`; a
                campaign's keys are kept for `CAMPAIGN_TTL_SECONDS` after the job's end.

        Raises:
            InvalidJob: naming each wrong field; nothing was stored.
            IdempotencyConflict: the key belongs to a job with another body; nothing was stored.
            QueueUnavailable: Redis is away; nothing was stored.
            EnqueueUnknown: the reply was lost; the same idempotency key may be tried again.
        """
        options = {
            "idempotency_key": idempotency_key,
            "send_at": send_at,
            "expires_at": expires_at,
            "delivery": delivery,
            "urgent": urgent,
            "campaign": campaign,
        }
        # Defaults need no validation, which would cost half as much as that of the body.
        given = {name: value for name, value in options.items() if value is not _DEFAULTS[name]}
        new = with_default_key(parse_new_job(job, given))
        return self._ledger.enqueue([new]).jobs[0].job_id

    def enqueue_many(
        self,
        rows: Iterable[MessageRow | Mapping[str, Any]],
        *,
        on_invalid: Literal["raise", "skip"] = "raise",
        allow_duplicates: bool = False,
        progress: Callable[[int], object] | None = None,
        stop: threading.Event | None = None,
    ) -> EnqueueReport:
        """Enqueue many messages, in batches of 500.

        Each batch is stored at once: all of it or none, but for rows that "skip" rejects. The
        report has how many jobs are new and how many rows had been enqueued before.

        Args:
            rows: each the API's own body, with options of `enqueue` beside its fields if wanted.
            on_invalid: "raise" validates all rows before it stores any, and stores nothing of a
                batch with an idempotency key in conflict. "skip" takes an endless iterable, batch
                by batch, and reports the rows it rejects: invalid ones and those in conflict.
            allow_duplicates: whether rows of a campaign may be the same message. Otherwise, those
                without an idempotency key get `campaign/page_id/recipient_id/payload_id`.
            progress: called with the number of rows done so far, after each batch.
            stop: once it is set, no further rows are read, and the call ends after the batch under
                way; the report has what was stored.

        Raises:
            InvalidJob: (with "raise") of the first wrong row, fields prefixed by `[index].`;
                nothing was stored.
            IdempotencyConflict: (with "raise") of the first row in conflict; its `accepted` are
                the jobs of the batches stored before.
            QueueUnavailable, EnqueueUnknown: its `accepted` are the jobs stored before.
        """
        if on_invalid not in ("raise", "skip"):
            raise ValueError(f"on_invalid must be 'raise' or 'skip', not {on_invalid!r}")
        report = EnqueueReport()
        skip = on_invalid == "skip"
        stop = stop or threading.Event()
        rejected = report.rejected if skip else None
        valid = valid_rows(_until(stop, rows), rejected, allow_duplicates=allow_duplicates)
        if not skip:
            valid = iter(list(valid))
        while not stop.is_set() and (batch := list(islice(valid, BATCH_SIZE))):
            try:
                enqueued = self._ledger.enqueue([row.job for row in batch], skip_conflicts=skip)
            except QueueUnavailable as error:
                error.accepted = report.accepted
                raise
            except IdempotencyConflict as error:
                raise IdempotencyConflict(
                    idempotency_key=error.idempotency_key,
                    job_id=error.job_id,
                    fields=error.fields,
                    index=batch[error.index].index,
                    accepted=report.accepted,
                ) from None
            report.add(batch, enqueued.jobs)
            if progress is not None:
                progress(len(report.accepted) + len(report.rejected))
        return report

    def get_job(self, job_id: str) -> JobRecord:
        """Return what is known of a job.

        Raises:
            JobNotFound: it never existed, or its retention has ended.
        """
        record = self._ledger.reader.get(job_id)
        if record is None:
            raise JobNotFound(job_id)
        return record

    def find_job_id(self, beginning: str) -> str:
        """Return the id of the one job whose id begins with `beginning`.

        A whole id costs one look-up. A shorter text, of 8 hexadecimal characters or more, goes
        through all keys of the Redis database in small steps (about 1 s for a million keys): meant
        for people, not for web requests.

        Raises:
            JobNotFound: there is no such job (any more).
            AmbiguousJobId: there are several; its `candidates` are some of them.
        """
        return self._ledger.reader.find_id(beginning)

    def find_jobs(
        self,
        *,
        state: State | str | Iterable[State | str] | None = None,
        error_code: str | Iterable[str] | None = None,
        page_id: str | Iterable[str] | None = None,
        campaign: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Return at most `limit` jobs, the latest first.

        Args:
            state: only jobs in this state, or in any of several.
            error_code: only jobs with this code, or any of several; without a `state`, only failed
                jobs.
            page_id, campaign: only jobs of this page or campaign, or of any of several.
            since, until: bounds (aware) of when a job finished or, if it has not, was enqueued.
            limit: maximum number of jobs to return.

        Raises:
            ValueError: a time has no time zone, `since` is after `until`, there is no such state,
                or a filter has no value or more than 100.
        """
        wanted = JobFilter(
            states=tuple(map(State, _values("state", state))),
            error_codes=_values("error_code", error_code),
            page_ids=_values("page_id", page_id),
            campaigns=_values("campaign", campaign),
            since=since,
            until=until,
        )
        return self._ledger.reader.find(wanted, limit)

    def iterate_failed(
        self,
        *,
        error_code: str | Iterable[str] | None = None,
        page_id: str | Iterable[str] | None = None,
        campaign: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[JobRecord]:
        """Yield every failed job that fits, the latest first; `since` and `until` are aware.

        The jobs are read during the iteration, so collect the ids before changing any job.

        Raises:
            ValueError: as `find_jobs`.
        """
        wanted = JobFilter(
            error_codes=_values("error_code", error_code),
            page_ids=_values("page_id", page_id),
            campaigns=_values("campaign", campaign),
            since=since,
            until=until,
        )
        pages = self._ledger.reader.failed_pages(wanted)
        return (record for page in pages for record in page.records)

    def count_errors(
        self,
        *,
        error_code: str | Iterable[str] | None = None,
        page_id: str | Iterable[str] | None = None,
        campaign: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[str, int]:
        """Return how many failed jobs each error code has, the most frequent first.

        Raises:
            ValueError: as `find_jobs`.
        """
        wanted = JobFilter(
            error_codes=_values("error_code", error_code),
            page_ids=_values("page_id", page_id),
            campaigns=_values("campaign", campaign),
            since=since,
            until=until,
        )
        return self._ledger.reader.count_by_error_code(wanted).by_name

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        return self._ledger.reader.count_states()

    def replay(self, job_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Queue a failed job again, with all its attempts and a new deadline.

        `by` (who does it, `user@host` by default) and `via` (by what means) are kept in the audit.

        Returns whether it was: False if it is not failed (a sent job is never sent again).

        Raises:
            JobNotFound: there is no such job (any more).
        """
        if self.replay_many([job_id], by=by, via=via):
            return True
        self.get_job(job_id)
        return False

    def replay_many(
        self, job_ids: Sequence[str], *, by: str | None = None, via: Via = "python"
    ) -> list[str]:
        """Queue failed jobs again; returns the ids of those that were failed.

        `by` and `via` as for `replay`.
        """
        replay = Replay(self._ledger, job_ids=job_ids, by=by, via=via)
        return [job_id for batch in replay.run() for job_id in batch.job_ids]

    def cancel(self, job_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Cancel a job that is scheduled, queued or retrying.

        `by` and `via` as for `replay`.

        Returns whether it is canceled: False if it is being sent, or has ended otherwise.

        Raises:
            JobNotFound: there is no such job (any more).
        """
        audit = AuditEntry(
            action="cancel", by=by or local_user(), via=via, filter={"job_id": [job_id]}
        )
        (state,) = self._ledger.cancel([job_id], audit)
        if state is None:
            raise JobNotFound(job_id)
        return state is State.CANCELLED

    def cancel_many(
        self,
        *,
        state: State | str | Iterable[State | str] | None = None,
        error_code: str | Iterable[str] | None = None,
        page_id: str | Iterable[str] | None = None,
        campaign: str | Iterable[str] | None = None,
        payload_id: str | Iterable[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        dry_run: bool = False,
        progress: Callable[[int], object] | None = None,
        by: str | None = None,
        via: Via = "python",
    ) -> CancelReport:
        """Cancel every scheduled, queued or retrying job that fits; at least one filter is needed.

        Works in steps of a few milliseconds of Redis' time. If it is interrupted, the same call
        cancels the others. Jobs enqueued after it began are left alone, and calls in flight end
        normally: the report has how many. Takes several seconds for 100,000 jobs.

        Args:
            state, error_code, page_id, campaign, payload_id: only jobs with this value, or with any
                of several.
            since, until: bounds (aware) of when a job was enqueued.
            dry_run: only count the jobs that would be canceled.
            progress: called with the number of jobs canceled so far, after each step.
            by, via: as for `replay`.

        Raises:
            ValueError: there is no filter, or a wrong one: see `find_jobs`.
            QueueUnavailable: some of the jobs may have been canceled.
        """
        wanted = JobFilter(
            states=tuple(map(State, _values("state", state))),
            error_codes=_values("error_code", error_code),
            page_ids=_values("page_id", page_id),
            campaigns=_values("campaign", campaign),
            since=since,
            until=until,
        )
        cancellation = Cancellation(
            self._ledger,
            wanted,
            payload_ids=_values("payload_id", payload_id),
            by=by,
            via=via,
        )
        report = CancelReport()
        for report in cancellation.plan() if dry_run else cancellation.run():
            if progress is not None:
                progress(report.count)
        return report

    def pause_page(
        self,
        page_id: str,
        *,
        reason: str = "",
        for_seconds: float | None = None,
        by: str | None = None,
        via: Via = "python",
    ) -> int:
        """Pause a page: its jobs wait, unspent, until it is resumed. Takes constant time.

        Calls in flight end normally. Returns how many jobs wait.

        Args:
            page_id: the page; it may have no jobs yet.
            reason: shown to people.
            for_seconds: how long; None for until it is resumed.
            by: who pauses it; `user@host` of this process if left out.
            via: what that is done with, for the audit.

        Raises:
            InvalidRequest: an argument is wrong; nothing was changed.
        """
        return self._ledger.pause_page(
            page_id, reason=reason, for_seconds=for_seconds, by=by or local_user(), via=via
        )

    def resume_page(self, page_id: str, *, by: str | None = None, via: Via = "python") -> Lifted:
        """End a page's pause by an operator.

        If there is none but the page is paused automatically, its next probe goes out at once.
        Returns which of these it was; `Lifted.NOTHING` if the page is not paused.

        Raises:
            InvalidRequest: `page_id` is not a page id.
        """
        return self._ledger.resume_page(page_id, by=by, via=via)

    def pause_all(
        self,
        *,
        reason: str = "",
        for_seconds: float | None = None,
        by: str | None = None,
        via: Via = "python",
    ) -> None:
        """Pause every page, as `pause_page` does; for campaigns and single messages alike.

        Raises:
            InvalidRequest: an argument is wrong; nothing was changed.
        """
        self._ledger.pause_all(
            reason=reason, for_seconds=for_seconds, by=by or local_user(), via=via
        )

    def resume_all(self, *, by: str | None = None, via: Via = "python") -> bool:
        """End the pause of all pages; returns whether there was one.

        Pages that were paused by `pause_page` stay paused.
        """
        return self._ledger.resume_all(by=by, via=via)

    def set_rate(
        self,
        page_id: str,
        rate: float | None,
        burst: int | None = None,
        *,
        by: str | None = None,
        via: Via = "python",
    ) -> None:
        """Set how fast a page sends, over all workers; effective within a second.

        Args:
            page_id: the page; it may have no jobs yet.
            rate: messages a second; 0 for no limit, None for the setting `PAGE_RATE` again.
            burst: messages at once; the setting `PAGE_BURST` if left out.
            by: who sets it; `user@host` of this process if left out.
            via: what that is done with, for the audit.

        Raises:
            InvalidRequest: an argument is wrong; nothing was changed.
        """
        if rate is None:
            self._ledger.clear_rate(page_id, by=by, via=via)
        else:
            self._ledger.set_rate(page_id, rate, burst, by=by or local_user(), via=via)

    def get_campaign(self, name: str) -> Campaign:
        """Return how far a campaign is, what failed of it, what holds it, and its pages.

        Raises:
            CampaignNotFound: no job named it, or it was forgotten (`CAMPAIGN_TTL_SECONDS`).
        """
        found = self._ledger.reader.campaign(name)
        if found is None:
            raise CampaignNotFound(name)
        return found

    def find_campaigns(self) -> list[Campaign]:
        """Return the campaigns, those that changed last first, without errors and pages."""
        return self._ledger.reader.campaigns()

    def find_pauses(self, page_ids: Sequence[str]) -> list[Pause]:
        """Return what holds up some pages: pauses of all pages, of the pages, of their tokens."""
        return self._ledger.reader.pauses_of(*page_ids)

    def hold_campaign(
        self, name: str, *, reason: str = "", by: str | None = None, via: Via = "python"
    ) -> bool:
        """Hold a campaign: its jobs wait, unspent, until it is released. Takes constant time.

        Calls in flight end normally, and the pages' other messages are sent. Returns whether it was
        not held before.

        Args:
            reason: shown to people.
            by, via: as for `replay`.

        Raises:
            CampaignNotFound: there is no such campaign.
            CampaignCanceled: it is canceled.
            InvalidRequest: `reason` or `by` is too long.
        """
        return self._ledger.hold_campaign(name, reason, by=by or local_user(), via=via)

    def release_campaign(self, name: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Release a held campaign, and the rows that wait for its canary.

        `by` and `via` as for `replay`. Returns whether anything was held.

        Raises:
            CampaignNotFound: there is no such campaign.
            CampaignCanceled: it is canceled.
        """
        return self._ledger.release_campaign(name, by=by or local_user(), via=via)

    def cancel_campaign(
        self,
        name: str,
        *,
        progress: Callable[[int], object] | None = None,
        by: str | None = None,
        via: Via = "python",
    ) -> int:
        """Cancel a campaign for good: nothing of it is sent from now on.

        That holds as soon as the call has begun, whatever happens to it: its waiting jobs are then
        ended in steps of a few milliseconds of Redis' time, by this call or, if it was interrupted,
        by the workers. Calls in flight end normally. Jobs that are enqueued for it later are stored
        as canceled.

        Args:
            progress: called with the number of jobs canceled so far, after each step.
            by, via: as for `replay`.

        Returns how many jobs this call canceled.

        Raises:
            CampaignNotFound: there is no such campaign.
        """
        self._ledger.cancel_campaign(name, by=by or local_user(), via=via)
        canceled, more = 0, True
        while more:
            more, count = self._ledger.cancel_campaign_chunk(name)
            canceled += count
            if progress is not None:
                progress(canceled)
        return canceled

    def close(self) -> None:
        """Close the connections to Redis."""
        self._ledger.close()


def _until(stop: threading.Event, rows: Iterable[T]) -> Iterator[T]:
    """Yield rows until `stop` is set."""
    return takewhile(lambda _: not stop.is_set(), rows)


def _values(name: str, given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the values of one field of a filter.

    Raises:
        ValueError: `given` is empty. Taken for no condition, it would mean every job.
    """
    if given is None:
        return ()
    values = (given,) if isinstance(given, str) else tuple(given)
    if not values:
        raise ValueError(f"{name} has no value; leave it out (None) for any")
    return values
