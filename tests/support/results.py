"""One builder for claims and one for results, with the values that most tests do not care about."""

from __future__ import annotations

import time
from typing import Any

from harasocial_dispatch.ledger import Claim, Result
from harasocial_dispatch.schemas import (
    Delivery,
    JobVerdict,
    LaneVerdict,
    Outcome,
    OutcomeClass,
    State,
)

from .harness import body


def make_claim(payload_id: str = "__hrf_f_1", **fields: Any) -> Claim:
    """Return a claim, made now, of a job that was never sent before; `fields` replace its own."""
    message = body(payload_id)
    given = {
        "job_id": "job",
        "token": "claim",
        "page_id": message["page_id"],
        "body": message,
        "delivery": Delivery.AT_LEAST_ONCE,
        "attempts_spent": 0,
        "consecutive_pauses": 0,
        "claimed_at_ms": 0,
        "claimed_at": time.monotonic(),
        "remaining_seconds": 24 * 3600.0,
    }
    return Claim(**{**given, **fields})


def make_result(
    claim: Claim | None = None,
    state: State = State.SENT,
    error_code: str | None = None,
    *,
    delay_seconds: float = 0.0,
    lane: LaneVerdict | None = None,
    duration_ms: int | None = 5,
    **outcome: Any,
) -> Result:
    """Return the result of a claim whose call began when it was claimed.

    Args:
        state: where the job goes; without an outcome class among `outcome`, it is accepted if
            `sent`, and else permanent.
        error_code: of the outcome.
        outcome: other fields of the outcome.
    """
    claim = claim or make_claim()
    sent = state is State.SENT
    outcome.setdefault("outcome_class", OutcomeClass.ACCEPTED if sent else OutcomeClass.PERMANENT)
    return Result(
        claim=claim,
        outcome=Outcome(error_code=error_code, **outcome),
        job_verdict=JobVerdict(state=state, delay_seconds=delay_seconds),
        lane_verdict=lane or LaneVerdict(effect="none"),
        attempt_at_ms=claim.claimed_at_ms,
        attempt_duration_ms=duration_ms,
    )
