"""Possible poison: a job whose last holder stopped while it sent the job.

A process gets one at a time, so that a poisonous job spends no attempts of other jobs.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harasocial_dispatch.schemas import OutcomeClass, State
from support.scenario import Scenario


def lose(scenario: Scenario, ids: list[str]) -> None:
    """Have the jobs claimed by a worker that stops, and made ready again."""
    assert {claim.job_id for claim in scenario.claim()} >= set(ids)
    scenario.wait(60)
    scenario.sweep()
    scenario.wait(60)
    scenario.sweep()
    assert {scenario.state(job_id) for job_id in ids} == {State.QUEUED}


@pytest.fixture
def scenario(make_scenario: Callable[..., Scenario]) -> Scenario:
    return make_scenario(retry_base_seconds=1.0)


def test_a_job_that_comes_back_from_a_lost_worker_is_possible_poison(scenario: Scenario) -> None:
    """Other jobs are not."""
    lost = scenario.enqueue()
    lose(scenario, [lost])
    fresh = scenario.enqueue()
    assert {claim.job_id: claim.possible_poison for claim in scenario.claim()} == {
        lost: True,
        fresh: False,
    }


def test_possible_poisons_are_claimed_one_at_a_time(scenario: Scenario) -> None:
    """The limit is per process: another process takes the next one."""
    lost = [scenario.enqueue() for _ in range(4)]
    lose(scenario, lost)
    assert len(scenario.claim()) == 1
    assert scenario.claim(has_possible_poison=True) == []
    assert len(scenario.claim()) == 1
    assert scenario.counts() == {"sending": 2, "queued": 2}


@pytest.mark.parametrize("urgent", [False, True])
def test_possible_poisons_delay_no_other_job(scenario: Scenario, urgent: bool) -> None:
    """The other jobs may be on any page, at any position in the lane."""
    lost = [scenario.enqueue("1", urgent=urgent) for _ in range(3)]
    lose(scenario, lost)
    fresh = [scenario.enqueue(page) for page in ("1", "1", "2")]
    taken = {claim.job_id for claim in scenario.claim(has_possible_poison=True)}
    assert taken == set(fresh)


def test_a_page_of_possible_poisons_goes_to_the_back(scenario: Scenario) -> None:
    """With one free slot, the other pages still get it."""
    lost = [scenario.enqueue("1") for _ in range(3)]
    lose(scenario, lost)
    scenario.wait(1)
    fresh = [scenario.enqueue(page) for page in ("2", "3")]
    taken = []
    for _ in range(4):
        taken += [claim.job_id for claim in scenario.claim(1, has_possible_poison=True)]
        scenario.wait(0.001)
    assert sorted(taken) == sorted(fresh)


def test_possible_poisons_all_get_their_turn(scenario: Scenario) -> None:
    """All are sent, one after the other."""
    lost = [scenario.enqueue(page) for page in ("1", "1", "2", "3")]
    lose(scenario, lost)
    taken = []
    while claims := scenario.claim():
        (claim,) = claims
        taken.append(claim.job_id)
        scenario.record(claim, OutcomeClass.ACCEPTED)
        scenario.wait(0.01)
    assert sorted(taken) == sorted(lost)


def test_an_outcome_clears_a_possible_poison(scenario: Scenario) -> None:
    """The worker did not stop during this attempt."""
    lost = scenario.enqueue()
    lose(scenario, [lost])
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.TRANSIENT)
    scenario.wait(60)
    scenario.sweep()
    (claim,) = scenario.claim(has_possible_poison=True)
    assert not claim.possible_poison
