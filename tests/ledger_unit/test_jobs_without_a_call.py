"""Jobs that end without a call: claims and sweeps return them, and the caller records them.

If the caller dies first, the next sweep claims them again.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harasocial_dispatch.ledger import Claim
from harasocial_dispatch.schemas import State, from_ms
from harasocial_dispatch.worker.outcome.classify import outcome_without_call
from support.scenario import Scenario

START_MS = 1_769_851_800_000


def codes(claims: list[Claim]) -> dict[str, str | None]:
    """Return the error code with which each claimed job ends; None for a job to be sent."""
    outcomes = {claim.job_id: outcome_without_call(claim) for claim in claims}
    return {job_id: outcome.error_code if outcome else None for job_id, outcome in outcomes.items()}


def put_ghost(scenario: Scenario, page_id: str) -> None:
    """Add an id without a job to a lane."""
    scenario.client.rpush(scenario.key(f"ready:{page_id}"), "ghost")
    scenario.client.zadd(scenario.key("lanes"), {page_id: 0})


def test_a_claim_returns_what_cannot_be_sent(scenario: Scenario) -> None:
    """It returns expired jobs and entries without a job, next to jobs to be sent."""
    late = scenario.enqueue("1", expires_at=from_ms(START_MS + 1000))
    put_ghost(scenario, "2")
    good = scenario.enqueue("1")
    scenario.wait(1)
    claims = scenario.ledger.claim(10).claims
    assert codes(claims) == {late: "expired", "ghost": "invalid_job", good: None}
    assert scenario.counts() == {"sending": 3}
    scenario.end(claims)
    assert {scenario.get(job_id).error_code for job_id in (late, "ghost")} == {
        "expired",
        "invalid_job",
    }
    assert scenario.counts() == {"sending": 1, "failed": 2}


def test_what_cannot_be_sent_uses_nothing_of_its_page(
    make_scenario: Callable[..., Scenario],
) -> None:
    """It uses neither the page's rate nor the probe of its pause."""
    scenario = make_scenario(page_rate=1.0, page_burst=1)
    scenario.enqueue(expires_at=from_ms(START_MS + 1))
    put_ghost(scenario, "1")
    good = [scenario.enqueue() for _ in range(2)]
    scenario.wait(1)
    assert [claim.job_id for claim in scenario.claim()] == good[:1]


def test_a_sweep_returns_ended_leases_and_entries_that_are_no_job(scenario: Scenario) -> None:
    """They are claimed for the sweeper, with their attempts unchanged."""
    lost = scenario.enqueue("1", delivery="at_most_once")
    (first,) = scenario.claim()
    scenario.client.zadd(scenario.key("due"), {"ghost": 1})
    scenario.wait(60)
    claims = scenario.ledger.sweep().claims
    assert codes(claims) == {lost: "unknown_outcome", "ghost": "invalid_job"}
    assert all(claim.token != first.token for claim in claims)
    assert scenario.get(lost).attempt_count == 0
    scenario.end(claims)
    assert {scenario.state(job_id) for job_id in (lost, "ghost")} == {State.FAILED}


@pytest.mark.parametrize("ending", ["lease", "ghost in due", "ghost in a lane", "wrong lane"])
def test_a_claimant_that_dies_before_it_records_loses_nothing(
    scenario: Scenario, ending: str
) -> None:
    """After that lease, the next sweep claims the job again; one attempt is recorded per call."""
    job_id, spent = "ghost", 0
    if ending == "lease":
        job_id, spent = scenario.enqueue(), 1
        scenario.claim()
        scenario.wait(60)
        expected = "unknown_outcome"
    elif ending == "ghost in due":
        scenario.client.zadd(scenario.key("due"), {"ghost": 1})
        expected = "invalid_job"
    else:
        put_ghost(scenario, "1")
        if ending == "wrong lane":
            fields = {"state": "queued", "page_id": "2", "expires_at": "9" * 13, "attempts": "0"}
            scenario.client.hset(scenario.key("job:ghost"), mapping=fields)
        expected = "invalid_job"
    in_lane = ending in ("ghost in a lane", "wrong lane")
    died = scenario.ledger.claim(1).claims if in_lane else scenario.ledger.sweep().claims
    assert codes(died) == {job_id: expected}

    scenario.wait(59.999)
    assert scenario.ledger.sweep().claims == []
    scenario.wait(0.001)
    again = scenario.ledger.sweep().claims
    assert codes(again) == {job_id: expected}
    scenario.end(died)
    assert scenario.state(job_id) is State.SENDING, "only the last claimant records"
    scenario.end(again)

    record = scenario.get(job_id)
    assert (record.error_code, record.attempt_count) == (expected, spent)
    assert len(record.attempts) == spent
    assert "defect" not in scenario.client.hgetall(scenario.key(f"job:{job_id}"))


def test_an_ended_lease_does_not_pause_its_page(make_scenario: Callable[..., Scenario]) -> None:
    """A worker that dies during many calls of a page does not pause the page."""
    scenario = make_scenario(in_flight=8)
    for _ in range(8):
        scenario.enqueue()
    assert len(scenario.claim()) == 8
    scenario.wait(60)
    scenario.sweep()
    assert scenario.client.hgetall(scenario.key("pauses")) == {}


def test_a_defective_claim_whose_reply_is_lost_is_released_as_such(scenario: Scenario) -> None:
    """It returns to its lane, and is claimed again with its defect."""
    put_ghost(scenario, "1")
    scenario.claim_and_lose_the_reply()
    assert codes(scenario.ledger.claim(1).claims) == {"ghost": "invalid_job"}
