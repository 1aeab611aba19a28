"""Jobs that end without a call: claims and sweeps return them, and their claimant records them.

If the claimant dies first, the next sweep claims them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harasocial_dispatch.ledger import Claim
from harasocial_dispatch.schemas import State, from_ms
from harasocial_dispatch.worker.outcome.classify import outcome_without_call

if TYPE_CHECKING:
    from .conftest import Story

START_MS = 1_769_851_800_000


def codes(claims: list[Claim]) -> dict[str, str | None]:
    """Return the error code with which each claimed job ends; None for one to be sent."""
    outcomes = {claim.job_id: outcome_without_call(claim) for claim in claims}
    return {job_id: outcome.error_code if outcome else None for job_id, outcome in outcomes.items()}


def put_ghost(story: Story, page_id: str) -> None:
    """Put an id without a job into a lane."""
    story.client.rpush(story.key(f"ready:{page_id}"), "ghost")
    story.client.zadd(story.key("lanes"), {page_id: 0})


def test_a_claim_returns_what_cannot_be_sent(story: Story):
    """Expired jobs and entries that are no job, beside those to be sent."""
    late = story.enqueue("1", expires_at=from_ms(START_MS + 1000))
    put_ghost(story, "2")
    good = story.enqueue("1")
    story.wait(1)
    claims = story.ledger.claim(10).claims
    assert codes(claims) == {late: "expired", "ghost": "invalid_job", good: None}
    assert story.counts() == {"sending": 3}
    story.end(claims)
    assert {story.get(job_id).error_code for job_id in (late, "ghost")} == {
        "expired",
        "invalid_job",
    }
    assert story.counts() == {"sending": 1, "failed": 2}


def test_what_cannot_be_sent_uses_nothing_of_its_page(make_story: Callable[..., Story]):
    """Neither of its rate nor the probe of its pause."""
    story = make_story(page_rate=1.0, page_burst=1)
    story.enqueue(expires_at=from_ms(START_MS + 1))
    put_ghost(story, "1")
    good = [story.enqueue() for _ in range(2)]
    story.wait(1)
    assert [claim.job_id for claim in story.claim()] == good[:1]


def test_a_sweep_returns_ended_leases_and_entries_that_are_no_job(story: Story):
    """Claimed for the sweeper, with their attempts as they were."""
    lost = story.enqueue("1", delivery="at_most_once")
    (first,) = story.claim()
    story.client.zadd(story.key("due"), {"ghost": 1})
    story.wait(60)
    claims = story.ledger.sweep().claims
    assert codes(claims) == {lost: "unknown_outcome", "ghost": "invalid_job"}
    assert all(claim.token != first.token for claim in claims)
    assert story.get(lost).attempt_count == 0
    story.end(claims)
    assert {story.state(job_id) for job_id in (lost, "ghost")} == {State.FAILED}


@pytest.mark.parametrize("ending", ["lease", "ghost in due", "ghost in a lane", "wrong lane"])
def test_a_claimant_that_dies_before_it_records_loses_nothing(story: Story, ending: str):
    """The next sweep claims the job again, after that lease; one attempt is recorded per call."""
    job_id, spent = "ghost", 0
    if ending == "lease":
        job_id, spent = story.enqueue(), 1
        story.claim()
        story.wait(60)
        expected = "unknown_outcome"
    elif ending == "ghost in due":
        story.client.zadd(story.key("due"), {"ghost": 1})
        expected = "invalid_job"
    else:
        put_ghost(story, "1")
        if ending == "wrong lane":
            fields = {"state": "queued", "page_id": "2", "expires_at": "9" * 13, "attempts": "0"}
            story.client.hset(story.key("job:ghost"), mapping=fields)
        expected = "invalid_job"
    in_lane = ending in ("ghost in a lane", "wrong lane")
    died = story.ledger.claim(1).claims if in_lane else story.ledger.sweep().claims
    assert codes(died) == {job_id: expected}

    story.wait(59.999)
    assert story.ledger.sweep().claims == []
    story.wait(0.001)
    again = story.ledger.sweep().claims
    assert codes(again) == {job_id: expected}
    story.end(died)
    assert story.state(job_id) is State.SENDING, "only the last claimant records"
    story.end(again)

    record = story.get(job_id)
    assert (record.error_code, record.attempt_count) == (expected, spent)
    assert len(record.attempts) == spent
    assert "defect" not in story.client.hgetall(story.key(f"job:{job_id}"))


def test_an_ended_lease_says_nothing_about_its_page(make_story: Callable[..., Story]):
    """A worker that dies with many calls of a page does not pause it."""
    story = make_story(in_flight=8)
    for _ in range(8):
        story.enqueue()
    assert len(story.claim()) == 8
    story.wait(60)
    story.sweep()
    assert story.client.hgetall(story.key("pauses")) == {}


def test_a_defective_claim_whose_reply_is_lost_is_released_as_such(story: Story):
    """It goes back into its lane, and is claimed again with its defect."""
    put_ghost(story, "1")
    story.claim_and_lose_the_reply()
    assert codes(story.ledger.claim(1).claims) == {"ghost": "invalid_job"}
