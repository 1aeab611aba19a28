"""Arguments and results of the ledger's scripts, as types and as JSON rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..schemas import JobVerdict, LaneVerdict, NewJob, Outcome, SendJob
from .claim import Claim
from .job_hash import attempt_text, to_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueuedJob:
    """The result of enqueuing one job.

    Attributes:
        job_id: its own id, or the id of the job that already has its idempotency key.
        is_new: whether it was stored.
        conflicting_fields: the fields of the body that differ from the job with the same key. If
            there are any, `job_id` is the id of another message.
    """

    job_id: str
    is_new: bool
    conflicting_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Enqueued:
    """The results of enqueuing jobs, in order."""

    jobs: list[EnqueuedJob]

    @property
    def job_ids(self) -> list[str]:
        """The ids of the jobs, without those in conflict."""
        return [job.job_id for job in self.jobs if not job.conflicting_fields]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The claimed jobs, and the time until the next lane opens.

    `wait_seconds` is 0 if more jobs are ready now, and None if no lane has a job.
    """

    claims: list[Claim]
    wait_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of one claimed job, to be recorded.

    `token_fingerprint` identifies the token that was used; "" if none was used. `attempt_at_ms` is
    when the POST began, by the ledger's clock, and `attempt_duration_ms` is its duration. If this
    process made no POST, they are the time of the outcome and None.
    """

    claim: Claim
    outcome: Outcome
    job_verdict: JobVerdict
    lane_verdict: LaneVerdict
    token_fingerprint: str = ""
    attempt_at_ms: int
    attempt_duration_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The result of a sweep: jobs that are now queued, and claimed jobs that must be ended.

    `claims` are jobs whose lease ended or that have a defect. `more` is True if the sweep stopped
    at its limit, so that another sweep should follow at once. `repairs` are sentences about keys
    that another client changed and that were repaired since the last sweep.
    """

    made_ready: int
    more: bool
    claims: list[Claim]
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageChange:
    """A change of a page's pause, for the log.

    Attributes:
        page_id: the page, or "token:" and the fingerprint of a token for all of its pages.
        change: "paused", "probed" (one job of a paused page is sent) or "resumed".
        reason: why it is, or was, paused: app_throttled, auth, failing, refused, restricted or
            throttled.
        error_code: of the reply that caused the pause.
        until_ms: end of the pause (ms since the epoch); not used if the page was resumed.
        waiting: jobs in the page's lane; 0 for a token.
    """

    page_id: str
    change: str
    reason: str
    error_code: str | None
    until_ms: int
    waiting: int


def to_page_change(row: Sequence[Any]) -> PageChange:
    """Return the page change for a row returned by a script."""
    page_id, change, reason, error_code, until_ms, waiting = row
    return PageChange(
        page_id=page_id,
        change=change,
        reason=reason,
        error_code=error_code or None,
        until_ms=int(until_ms),
        waiting=waiting,
    )


def new_job_rows(job_ids: Iterable[str], jobs: Iterable[NewJob]) -> str:
    """Return the rows of new jobs for enqueue.lua."""
    return json.dumps(
        [
            [
                job_id,
                new.job.page_id,
                new.idempotency_key or "",
                new.send_at_ms or 0,
                new.expires_at_ms or 0,
                int(new.urgent),
                new.campaign or "",
                _fingerprint(new.job) if new.campaign and new.idempotency_key else "",
                to_fields(new),
            ]
            for job_id, new in zip(job_ids, jobs, strict=True)
        ]
    )


def _fingerprint(job: SendJob) -> str:
    """Return a digest of the body, so short that Redis stores it with an id at no extra cost."""
    # The 32 characters of an id and these 12 fit in one allocation of a short string.
    texts = (job.page_id, job.recipient_id, job.payload_id, job.metadata or "")
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def result_row(result: Result) -> str:
    """Return the row of one result for record.lua."""
    outcome, job, lane = result.outcome, result.job_verdict, result.lane_verdict
    attempt = ""
    if job.attempt_spent:
        attempt = attempt_text(
            result.attempt_at_ms,
            result.attempt_duration_ms,
            outcome.http_status,
            outcome.error_code,
            outcome.error_message,
        )
    return json.dumps(
        [
            result.claim.job_id,
            result.claim.token,
            job.state.value,
            round(job.delay_seconds * 1000),
            outcome.error_code or "",
            outcome.error_message or "",
            str(outcome.http_status or ""),
            attempt,
            [
                lane.effect,
                lane.reason,
                round(lane.pause_seconds * 1000),
                result.claim.consecutive_pauses,
                lane.token_fingerprint,
            ],
            _token_part(result),
        ]
    )


def _token_part(result: Result) -> list[str | int]:
    """Return the effect of a result on its token; an empty list for most results."""
    limit, pauses = result.outcome.call_limit, result.claim.token_pauses
    concerns = limit is not None or pauses > 0 or result.lane_verdict.effect == "pause_token"
    if not (concerns and result.token_fingerprint):
        return []
    used, most = (limit.used, limit.limit) if limit else (0, 0)
    return [result.token_fingerprint, pauses, used, most]
