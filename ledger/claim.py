"""A claim: what the pump is given, for as long as its lease lasts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..schemas import Attempt, Delivery
from .job_hash import to_attempts, to_body, to_delivery, to_int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this process alone may send, until its lease ends.

    Attributes:
        token: what must be shown to record an outcome.
        body: the API's body as stored; not yet validated.
        attempts_spent: since the enqueueing or the latest replay.
        consecutive_pauses: of the page's lane; above 0, this claim is its probe, or the page
            recovers from a pause.
        token_pauses: the same of the page's token.
        claimed_at_ms, claimed_at: when, by the ledger's clock (milliseconds since the epoch) and
            by this process's monotonic clock (seconds).
        received_at: when the reply with the claim was read, by this process's monotonic clock.
        remaining_seconds: from the claim until the job's deadline.
        lease_ended: whether an earlier holder was sending it, and did not record how that ended in
            time.
        defect: why it cannot be sent, if its record in Redis is not a complete job.
        is_paced: whether its page has a rate; if so, its request must begin within
            `START_WITHIN_SECONDS` of `claimed_at`, or the job is released unsent.
        possible_poison: whether a holder went away while sending it, in its latest attempt.
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
    received_at: float = 0.0
    remaining_seconds: float
    lease_ended: bool = False
    defect: str | None = None
    token_pauses: int = 0
    is_paced: bool = False
    possible_poison: bool = False
    #: The latest ones before this claim, at most 50, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Whether it had failed, and was replayed.
    replayed: bool = False
    #: When it could first have been sent, its enqueueing or `send_at` (ms since the epoch).
    sendable_from_ms: int | None = None


def to_claim(row: Sequence[Any], *, token: str, now_ms: int, asked_at: float) -> Claim:
    """Return the claim of a row that claim.lua or sweep.lua has just returned."""
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
        # Most jobs are claimed once; the others can bear the reading.
        attempts=to_attempts(job) if job.get("attempts", "0") != "0" else (),
        replayed="attempts_before_replay" in job,
        sendable_from_ms=to_int(job.get("send_at")) or to_int(job.get("enqueued_at")),
    )
