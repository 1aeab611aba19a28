"""A claim: a job that the pump may send until its lease ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..schemas import Attempt, Delivery
from .job_hash import to_attempts, to_body, to_delivery, to_int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that only this process may send, until its lease ends.

    Attributes:
        token: required to record an outcome.
        body: the body of the API's request as stored; not validated.
        attempts_spent: attempts since the job was enqueued or last replayed.
        consecutive_pauses: of the page's lane. If above 0, this claim is the lane's probe, or the
            page recovers from a pause.
        token_pauses: consecutive pauses of the page's token.
        claimed_at_ms, claimed_at: when it was claimed, by the ledger's clock (milliseconds since
            the epoch) and by this process's monotonic clock (seconds).
        received_at: when the reply with the claim was read, by this process's monotonic clock.
        remaining_seconds: from the claim until the job's deadline.
        lease_ended: whether an earlier holder may have sent the job, but recorded no result
            before its lease ended.
        defect: why it cannot be sent, if its record in Redis is not a complete job.
        is_paced: whether its page has a rate. If so, the request must begin within
            `START_WITHIN_SECONDS` of `claimed_at`; otherwise the job is released unsent.
        possible_poison: whether the holder of its latest attempt stopped during the attempt.
    """

    job_id: str
    token: str
    page_id: str
    body: dict[str, Any]
    delivery: Delivery
    attempts_spent: int
    consecutive_pauses: int
    claimed_at_ms: int
    claimed_at: float
    received_at: float
    remaining_seconds: float
    lease_ended: bool = False
    defect: str | None = None
    token_pauses: int = 0
    is_paced: bool = False
    possible_poison: bool = False
    #: The latest attempts before this claim, at most 50, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Whether it failed before and was replayed.
    replayed: bool = False
    #: The earliest time to send it: when it was enqueued, or `send_at` (ms since the epoch).
    sendable_from_ms: int | None = None


def to_claim(row: Sequence[Any], *, token: str, now_ms: int, asked_at: float) -> Claim:
    """Return the claim for a row returned by claim.lua or sweep.lua."""
    job_id, consecutive_pauses, token_pauses, lease_ended, defect, is_paced, flat = row
    job: dict[str, str] = dict(zip(flat[::2], flat[1::2], strict=True))
    spent = (to_int(job.get("attempts")) or 0) - (to_int(job.get("attempts_before_replay")) or 0)
    return Claim(
        job_id=job_id,
        token=token,
        page_id=job.get("page_id", ""),
        body=to_body(job),
        delivery=to_delivery(job),
        attempts_spent=max(0, spent),
        consecutive_pauses=consecutive_pauses,
        claimed_at_ms=now_ms,
        claimed_at=asked_at,
        received_at=time.monotonic(),
        lease_ended=lease_ended == 1,
        token_pauses=token_pauses,
        defect=defect or None,
        is_paced=is_paced == 1,
        possible_poison=job.get("error_code") == "unknown_outcome",
        remaining_seconds=((to_int(job.get("expires_at")) or 0) - now_ms) / 1000,
        # Most jobs have no attempts yet, so this is skipped for them.
        attempts=to_attempts(job) if job.get("attempts", "0") != "0" else (),
        replayed="attempts_before_replay" in job,
        sendable_from_ms=to_int(job.get("send_at")) or to_int(job.get("enqueued_at")),
    )
