"""The class `Producer`: enqueue, look up, replay, cancel and pause."""

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

#: Maximum number of jobs that one script call stores: large enough that the call's fixed cost is
#: small.
BATCH_SIZE = 500
#: Timeout for connecting to Redis, and for its reply. Together they stay below 2 seconds.
_TIMEOUT_SECONDS = 0.7

#: The defaults of the options of `enqueue`.
_DEFAULTS: Mapping[str, Any] = {
    "idempotency_key": None,
    "send_at": None,
    "expires_at": None,
    "delivery": "at_least_once",
    "urgent": False,
    "campaign": None,
}


class Producer:
    """Enqueues jobs, and reads and changes them. Thread-safe.

    Every method raises `QueueUnavailable` within 2 seconds if Redis is not available: it cannot be
    reached, refuses the command or does not reply in time.
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
            job: the body of the API's request; `messaging_type` is optional.
            idempotency_key: all calls with the same key create one job, as long as that job is
                kept. Later calls must have the same body, and return the same id. Their other
                options are ignored.
            send_at: earliest time to send (aware).
            expires_at: the deadline, which is the latest time to send (aware). Default:
                `EXPIRES_SECONDS` after `send_at` or, without it, after the call.
            delivery: what to do if it is unknown whether a POST was processed.
            urgent: send before the other jobs of its page.
            campaign: name of the message's campaign, 1 to 64 characters of `A-Za-z0-9._-`. The
                page's other messages are sent before those of campaigns. The default idempotency
                key is then `campaign/page_id/recipient_id/payload_id`. A campaign's keys are kept
                for `CAMPAIGN_TTL_SECONDS` after the job's end.

        Raises:
            InvalidJob: fields are not valid; the error lists them. Nothing was stored.
            IdempotencyConflict: the key belongs to a job with another body; nothing was stored.
            QueueUnavailable: Redis is not available; nothing was stored.
            EnqueueUnknown: the reply was lost. It is safe to call again with the same
                idempotency key.
        """
        options = {
            "idempotency_key": idempotency_key,
            "send_at": send_at,
            "expires_at": expires_at,
            "delivery": delivery,
            "urgent": urgent,
            "campaign": campaign,
        }
        # Defaults are valid. Their validation would take half as long as that of the body.
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

        Each batch is stored completely or not at all, except for rows that "skip" rejects. The
        report contains the number of new jobs and of rows that were already enqueued.

        Args:
            rows: each row is the body of the API's request, which may also contain options of
                `enqueue`.
            on_invalid: "raise" validates all rows before it stores any. If a row of a batch is in
                conflict, nothing of the batch is stored. "skip" reads the iterable batch by batch,
                so that it may be endless, and reports invalid rows and rows in conflict.
            allow_duplicates: whether rows of a campaign may be the same message. If not, rows
                without an idempotency key get `campaign/page_id/recipient_id/payload_id`.
            progress: called after each batch with the number of rows done so far.
            stop: if it is set, no more rows are read, and the call ends after the current batch.
                The report contains what was stored.

        Raises:
            InvalidJob: (with "raise") a row is not valid; its fields have the prefix `[index].`.
                Nothing was stored.
            IdempotencyConflict: (with "raise") a row is in conflict; `accepted` has the jobs of
                earlier batches.
            QueueUnavailable, EnqueueUnknown: `accepted` has the jobs of earlier batches.
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
        """Return a job.

        Raises:
            JobNotFound: it never existed, or its retention has ended.
        """
        record = self._ledger.reader.get(job_id)
        if record is None:
            raise JobNotFound(job_id)
        return record

    def find_job_id(self, beginning: str) -> str:
        """Return the id of the only job whose id begins with `beginning`.

        A complete id needs one lookup. A shorter text, of 8 hexadecimal characters or more, scans
        all keys of the Redis database in small steps (about 1 s for a million keys). Do not use
        this in web requests.

        Raises:
            JobNotFound: no such job exists.
            AmbiguousJobId: several jobs match; `candidates` has some of them.
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
            state: only jobs in this state, or in one of several states.
            error_code: only jobs with this code, or with one of several codes; without a `state`,
                only failed jobs.
            page_id, campaign: only jobs of this page or campaign, or of one of several.
            since, until: bounds (aware) of when a job ended or, if it has not, was enqueued.
            limit: maximum number of jobs to return.

        Raises:
            ValueError: a time has no time zone, `since` is after `until`, a state does not exist,
                or a filter has no value or more than 100.
        """
        wanted = _filter(state, error_code, page_id, campaign, since, until)
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
        """Yield all matching failed jobs, the latest first; `since` and `until` are aware.

        The jobs are read during the iteration. Collect the ids first if you change jobs.

        Raises:
            ValueError: see `find_jobs`.
        """
        wanted = _filter(None, error_code, page_id, campaign, since, until)
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
            ValueError: see `find_jobs`.
        """
        wanted = _filter(None, error_code, page_id, campaign, since, until)
        return self._ledger.reader.count_by_error_code(wanted).by_name

    def count_states(self) -> dict[State, int]:
        """Return how many jobs are in each state."""
        return self._ledger.reader.count_states()

    def replay(self, job_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Queue a failed job again, with the full number of attempts and a new deadline.

        `by` (who replays it, `user@host` by default) and `via` (the interface that is used) are
        stored in the audit.

        Returns whether it was queued: False if it is not failed (a sent job is never sent again).

        Raises:
            JobNotFound: no such job exists.
        """
        if self.replay_many([job_id], by=by, via=via):
            return True
        self.get_job(job_id)
        return False

    def replay_many(
        self, job_ids: Sequence[str], *, by: str | None = None, via: Via = "python"
    ) -> list[str]:
        """Queue failed jobs again; return the ids of the jobs that were queued.

        `by` and `via` as for `replay`.
        """
        replay = Replay(self._ledger, job_ids=job_ids, by=by, via=via)
        return [job_id for batch in replay.run() for job_id in batch.job_ids]

    def cancel(self, job_id: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Cancel a job that is scheduled, queued or retrying.

        `by` and `via` as for `replay`.

        Returns whether it is canceled: False if it is being sent, was sent or failed.

        Raises:
            JobNotFound: no such job exists.
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
        """Cancel all matching scheduled, queued or retrying jobs; needs at least one filter.

        Each step takes a few milliseconds of Redis' time; 100,000 jobs take several seconds. After
        an interruption, the same call cancels the other jobs. Jobs that are enqueued later are not
        canceled. Calls in flight end normally; the report contains their number.

        Args:
            state, error_code, page_id, campaign, payload_id: only jobs with this value, or with one
                of several values.
            since, until: bounds (aware) of when a job was enqueued.
            dry_run: only count the jobs that would be canceled.
            progress: called with the number of jobs canceled so far, after each step.
            by, via: as for `replay`.

        Raises:
            ValueError: there is no filter, or a filter is not valid: see `find_jobs`.
            QueueUnavailable: some of the jobs may have been canceled.
        """
        wanted = _filter(state, error_code, page_id, campaign, since, until)
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
        """Pause a page: its jobs wait until it is resumed, and spend no attempts.

        Takes constant time. Calls in flight end normally. Returns how many jobs wait.

        Args:
            page_id: the page; it may have no jobs yet.
            reason: shown to other operators.
            for_seconds: duration of the pause; None until it is resumed.
            by: who pauses it; default: `user@host` of this process.
            via: the interface that is used, for the audit.

        Raises:
            InvalidRequest: an argument is not valid; nothing was changed.
        """
        return self._ledger.pause_page(
            page_id, reason=reason, for_seconds=for_seconds, by=by, via=via
        )

    def resume_page(self, page_id: str, *, by: str | None = None, via: Via = "python") -> Lifted:
        """End a page's pause by an operator.

        If there is none but the page is paused automatically, its next probe is sent at once.
        Returns which pause it was; `Lifted.NOTHING` if the page is not paused.

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
        """Pause all pages; see `pause_page`. Applies to campaigns and single messages.

        Raises:
            InvalidRequest: an argument is not valid; nothing was changed.
        """
        self._ledger.pause_all(reason=reason, for_seconds=for_seconds, by=by, via=via)

    def resume_all(self, *, by: str | None = None, via: Via = "python") -> bool:
        """End the pause of all pages; return whether there was one.

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
        """Set the rate of a page over all workers. It takes effect within a second.

        Args:
            page_id: the page; it may have no jobs yet.
            rate: messages per second; 0 for no limit, None to reset to the setting `PAGE_RATE`.
            burst: messages at once; default: the setting `PAGE_BURST`.
            by: who sets it; default: `user@host` of this process.
            via: the interface that is used, for the audit.

        Raises:
            InvalidRequest: an argument is not valid; nothing was changed.
        """
        if rate is None:
            self._ledger.clear_rate(page_id, by=by, via=via)
        else:
            self._ledger.set_rate(page_id, rate, burst, by=by, via=via)

    def get_campaign(self, name: str) -> Campaign:
        """Return a campaign with its progress, errors, hold and pages.

        Raises:
            CampaignNotFound: it never existed, or its retention (`CAMPAIGN_TTL_SECONDS`) has ended.
        """
        found = self._ledger.reader.campaign(name)
        if found is None:
            raise CampaignNotFound(name)
        return found

    def find_campaigns(self) -> list[Campaign]:
        """Return the campaigns without errors and pages, the last changed first."""
        return self._ledger.reader.campaigns()

    def find_pauses(self, page_ids: Sequence[str]) -> list[Pause]:
        """Return the pauses that apply to some pages: of all pages, the pages and their tokens."""
        return self._ledger.reader.pauses_of(*page_ids)

    def hold_campaign(
        self, name: str, *, reason: str = "", by: str | None = None, via: Via = "python"
    ) -> bool:
        """Hold a campaign: its jobs wait until it is released, and spend no attempts.

        Takes constant time. Calls in flight end normally, and the pages' other messages are sent.
        Returns whether it was not held before.

        Args:
            reason: shown to other operators.
            by, via: as for `replay`.

        Raises:
            CampaignNotFound: there is no such campaign.
            CampaignCanceled: it is canceled.
            InvalidRequest: `reason` or `by` is too long.
        """
        return self._ledger.hold_campaign(name, reason, by=by, via=via)

    def release_campaign(self, name: str, *, by: str | None = None, via: Via = "python") -> bool:
        """Release a held campaign, and the rows that wait for its canary.

        `by` and `via` as for `replay`. Returns whether it was held.

        Raises:
            CampaignNotFound: there is no such campaign.
            CampaignCanceled: it is canceled.
        """
        return self._ledger.release_campaign(name, by=by, via=via)

    def cancel_campaign(
        self,
        name: str,
        *,
        progress: Callable[[int], object] | None = None,
        by: str | None = None,
        via: Via = "python",
    ) -> int:
        """Cancel a campaign permanently: no more of its jobs are sent.

        This takes effect at the start of the call. Its waiting jobs are then canceled in steps of a
        few milliseconds of Redis' time. If the call is interrupted, the workers continue. Calls in
        flight end normally. Jobs that are enqueued for the campaign later are stored as canceled.

        Args:
            progress: called with the number of jobs canceled so far, after each step.
            by, via: as for `replay`.

        Returns how many jobs this call canceled.

        Raises:
            CampaignNotFound: there is no such campaign.
        """
        self._ledger.cancel_campaign(name, by=by, via=via)
        canceled, more = 0, True
        while more:
            more, count = self._ledger.continue_campaign_work(name)
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


def _filter(
    state: State | str | Iterable[State | str] | None,
    error_code: str | Iterable[str] | None,
    page_id: str | Iterable[str] | None,
    campaign: str | Iterable[str] | None,
    since: datetime | None,
    until: datetime | None,
) -> JobFilter:
    return JobFilter(
        states=tuple(map(State, _values("state", state))),
        error_codes=_values("error_code", error_code),
        page_ids=_values("page_id", page_id),
        campaigns=_values("campaign", campaign),
        since=since,
        until=until,
    )


def _values(name: str, given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Return the values of one field of a filter.

    Raises:
        ValueError: `given` is empty. Without a condition, every job would match.
    """
    if given is None:
        return ()
    values = (given,) if isinstance(given, str) else tuple(given)
    if not values:
        raise ValueError(f"{name} has no value; leave it out (None) for any")
    return values
