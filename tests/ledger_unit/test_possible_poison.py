"""Possible poison: a job whose last holder went away while sending it. It may have killed it.

A process gets one at a time, so that a poisonous job spends no attempts of those beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harasocial_dispatch.schemas import OutcomeClass, State

if TYPE_CHECKING:
    from .conftest import Story


def lose(story: Story, ids: list[str]) -> None:
    """Have the jobs claimed by a worker that goes away, and made ready again."""
    assert {claim.job_id for claim in story.claim()} >= set(ids)
    story.wait(60)
    story.sweep()
    story.wait(60)
    story.sweep()
    assert {story.state(job_id) for job_id in ids} == {State.QUEUED}


@pytest.fixture
def story(make_story: Callable[..., Story]) -> Story:
    return make_story(retry_base_seconds=1.0)


def test_a_job_that_comes_back_from_a_lost_worker_is_possible_poison(story: Story):
    """Any other is not."""
    lost = story.enqueue()
    lose(story, [lost])
    fresh = story.enqueue()
    assert {claim.job_id: claim.possible_poison for claim in story.claim()} == {
        lost: True,
        fresh: False,
    }


def test_possible_poisons_are_claimed_one_at_a_time(story: Story):
    """By one process; another, whose own is none, takes the next."""
    lost = [story.enqueue() for _ in range(4)]
    lose(story, lost)
    assert len(story.claim()) == 1
    assert story.claim(has_possible_poison=True) == []
    assert len(story.claim()) == 1
    assert story.counts() == {"sending": 2, "queued": 2}


@pytest.mark.parametrize("urgent", [False, True])
def test_possible_poisons_hold_back_no_other_job(story: Story, urgent: bool):
    """Neither of their page nor of others, wherever they stand in the lane."""
    lost = [story.enqueue("1", urgent=urgent) for _ in range(3)]
    lose(story, lost)
    fresh = [story.enqueue(page) for page in ("1", "1", "2")]
    taken = {claim.job_id for claim in story.claim(has_possible_poison=True)}
    assert taken == set(fresh)


def test_a_page_of_possible_poisons_goes_to_the_back(story: Story):
    """With one slot free, the other pages still get it."""
    lost = [story.enqueue("1") for _ in range(3)]
    lose(story, lost)
    story.wait(1)
    fresh = [story.enqueue(page) for page in ("2", "3")]
    taken = []
    for _ in range(4):
        taken += [claim.job_id for claim in story.claim(1, has_possible_poison=True)]
        story.wait(0.001)
    assert sorted(taken) == sorted(fresh)


def test_possible_poisons_all_get_their_turn(story: Story):
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


def test_an_outcome_clears_a_possible_poison(story: Story):
    """Its worker lived to tell."""
    lost = story.enqueue()
    lose(story, [lost])
    (claim,) = story.claim()
    story.record(claim, OutcomeClass.TRANSIENT)
    story.wait(60)
    story.sweep()
    (claim,) = story.claim(has_possible_poison=True)
    assert not claim.possible_poison
