"""Builders for claims and results, with default values."""

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
    """Return a new claim of a job that was never sent. `fields` replace its values."""
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
        "received_at": time.monotonic(),
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
    """Return the result of a claim. Its call began at the time of the claim.

    Args:
        state: the next state of the job. The default outcome class is accepted for `sent`, and
            permanent for other states.
        error_code: the error code of the outcome.
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
