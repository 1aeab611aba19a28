"""Suspects: jobs whose last holder went away while sending them. One of them may have killed it.

A process gets one at a time, so that a poisonous job spends no attempts of those beside it; and the
ledger tells which jobs it failed by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harasocial_dispatch.ledger import Unsent
from harasocial_dispatch.schemas import OutcomeClass, State, from_ms

if TYPE_CHECKING:
    from .conftest import Story

START_MS = 1_769_851_800_000


def lose(story: Story, ids: list[str]) -> None:
    """Have the jobs claimed by a worker that goes away, and made ready again."""
    assert {claim.job_id for claim in story.claim()} >= set(ids)
    story.wait(60)
    story.ledger.sweep()
    story.wait(60)
    story.ledger.sweep()
    assert {story.state(job_id) for job_id in ids} == {State.QUEUED}


@pytest.fixture
def story(make_story: Callable[..., Story]) -> Story:
    return make_story(retry_base_seconds=1.0)


def test_a_job_that_comes_back_from_a_lost_worker_is_a_suspect(story: Story):
    """Any other is not."""
    lost = story.enqueue()
    lose(story, [lost])
    fresh = story.enqueue()
    assert {claim.job_id: claim.suspect for claim in story.claim()} == {lost: True, fresh: False}


def test_suspects_are_claimed_one_at_a_time(story: Story):
    """By one process; another, whose own is none, takes the next."""
    lost = [story.enqueue() for _ in range(4)]
    lose(story, lost)
    assert len(story.claim()) == 1
    assert story.claim(has_suspect=True) == []
    assert len(story.claim()) == 1
    assert story.counts() == {"sending": 2, "queued": 2}


@pytest.mark.parametrize("urgent", [False, True])
def test_suspects_hold_back_no_other_job(story: Story, urgent: bool):
    """Neither of their page nor of others, wherever they stand in the lane."""
    lost = [story.enqueue("1", urgent=urgent) for _ in range(3)]
    lose(story, lost)
    fresh = [story.enqueue(page) for page in ("1", "1", "2")]
    taken = {claim.job_id for claim in story.claim(has_suspect=True)}
    assert taken == set(fresh)


def test_a_page_of_suspects_goes_to_the_back(story: Story):
    """With one slot free, the other pages still get it."""
    lost = [story.enqueue("1") for _ in range(3)]
    lose(story, lost)
    story.wait(1)
    fresh = [story.enqueue(page) for page in ("2", "3")]
    taken = []
    for _ in range(4):
        taken += [claim.job_id for claim in story.claim(1, has_suspect=True)]
        story.wait(0.001)
    assert sorted(taken) == sorted(fresh)


def test_suspects_all_get_their_turn(story: Story):
    """Each is sent, one after the other."""
    lost = [story.enqueue(page) for page in ("1", "1", "2", "3")]
    lose(story, lost)
    taken = []
    while claims := story.claim():
        (claim,) = claims
        taken.append(claim.job_id)
        story.record(claim, OutcomeClass.ACCEPTED)
        story.wait(0.01)
    assert sorted(taken) == sorted(lost)


def test_an_outcome_ends_the_suspicion(story: Story):
    """Its worker lived to tell."""
    lost = story.enqueue()
    lose(story, [lost])
    (claim,) = story.claim()
    story.record(claim, OutcomeClass.TRANSIENT)
    story.wait(60)
    story.ledger.sweep()
    (claim,) = story.claim(has_suspect=True)
    assert not claim.suspect


def test_the_claim_tells_which_jobs_it_failed(story: Story):
    """They pass no worker, which would otherwise tell of them."""
    late = story.enqueue("1", expires_at=from_ms(START_MS + 1000))
    story.client.rpush(story.key("ready:2"), "ghost")
    story.client.zadd(story.key("lanes"), {"2": 0})
    good = story.enqueue("1")
    story.wait(1)
    claimed = story.ledger.claim(10)
    assert [claim.job_id for claim in claimed.claims] == [good]
    assert sorted(claimed.unsent, key=lambda unsent: unsent.page_id) == [
        Unsent(job_id=late, page_id="1", error_code="expired"),
        Unsent(job_id="ghost", page_id="2", error_code="invalid_job"),
    ]
    assert story.ledger.claim(10).unsent == []


def test_the_sweep_tells_which_jobs_it_failed(story: Story):
    """Those of unknown outcome it lists by themselves."""
    lost = story.enqueue("1", delivery="at_most_once")
    story.claim()
    story.client.zadd(story.key("due"), {"ghost": 1})
    story.wait(60)
    swept = story.ledger.sweep()
    assert [unknown.job_id for unknown in swept.unknown] == [lost]
    assert swept.unsent == [Unsent(job_id="ghost", page_id="", error_code="invalid_job")]
