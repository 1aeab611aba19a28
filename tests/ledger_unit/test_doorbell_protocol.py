"""When to ring: once for jobs that no pump will claim soon, and again if the doorbell was lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from harasocial_dispatch.schemas import OutcomeClass, from_ms, parse_new_job
from support.scenario import QuickScenario, Scenario

START_MS = 1_769_851_800_000


def rings(scenario: Scenario, **options: Any) -> bool:
    """Enqueue one job; return whether to ring for it."""
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
    return scenario.rings(lambda: scenario.ledger.enqueue([parse_new_job(body, options)]))


def test_the_first_job_rings_and_the_next_do_not(scenario: Scenario) -> None:
    """One unanswered doorbell is enough to wake a worker."""
    assert [rings(scenario) for _ in range(5)] == [True, False, False, False, False]


def test_an_unanswered_doorbell_is_rung_again(scenario: Scenario) -> None:
    """After two seconds it counts as lost for a sweep. More enqueued jobs do not ring again."""
    assert rings(scenario)
    scenario.wait(1.999)
    assert not rings(scenario)
    assert not scenario.rings(scenario.sweep)
    scenario.wait(0.001)
    assert scenario.rings(scenario.sweep)
    assert not scenario.rings(scenario.sweep)
    scenario.wait(2)
    assert not rings(scenario)
    assert scenario.rings(scenario.sweep)


def test_a_job_for_later_does_not_ring(scenario: Scenario) -> None:
    """No job is ready; the sweep rings when it is."""
    assert not rings(scenario, send_at=from_ms(START_MS + 60_000))
    assert not scenario.rings(scenario.sweep)
    scenario.wait(60)
    assert scenario.rings(scenario.sweep)


def test_a_claim_that_leaves_work_rings_for_another_worker(scenario: Scenario) -> None:
    """Idle processes join one after the other."""
    for _ in range(10):
        rings(scenario)
    assert scenario.rings(lambda: scenario.claim(1, answers_bell=True))
    assert not scenario.rings(lambda: scenario.claim(1)), "that doorbell is out"
    assert scenario.rings(lambda: scenario.claim(1, answers_bell=True))
    assert not scenario.rings(lambda: scenario.claim(100, answers_bell=True))


def test_doorbells_do_not_accumulate_while_all_pumps_are_busy(
    quick_scenario: QuickScenario,
) -> None:
    """One process answers one doorbell every 5 s, and rings for the rest."""
    scenario = quick_scenario
    rung = sum(rings(scenario) for _ in range(20))
    answered = 0
    for second in range(600):
        answers = second % 5 == 0 and answered < rung
        answered += answers
        rung += scenario.rings(partial(scenario.claim, 1, answers_bell=answers))
        rung += scenario.rings(scenario.sweep)
        scenario.wait(1)
        rings(scenario)
    assert 0 < rung - answered < 10


def test_doorbells_lost_together_are_rung_again_before_long(
    quick_scenario: QuickScenario,
) -> None:
    """The broker's data was deleted. A pump with no jobs left resets the count."""
    scenario = quick_scenario
    rings(scenario)
    for _ in range(600):
        scenario.wait(1)
        scenario.sweep()
    waited = 0
    while not scenario.rings(scenario.sweep):
        scenario.wait(1)
        waited += 1
    assert waited <= 5
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=0.04)
    scenario.ledger.leave()
    assert rings(scenario)
    scenario.wait(2)
    assert scenario.rings(scenario.sweep)


def test_an_attentive_pump_needs_no_doorbell(scenario: Scenario) -> None:
    """The pump claims again within the announced time."""
    rings(scenario)
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=0.04)
    assert not rings(scenario)
    assert len(scenario.claim(10, next_claim_in_seconds=0.04)) == 1
    assert not scenario.rings(scenario.sweep)


def test_an_attentive_pump_is_woken_by_the_ledger(scenario: Scenario) -> None:
    """It is woken once for any number of jobs, and only for jobs that may be sent now."""
    scenario.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    rings(scenario, send_at=from_ms(START_MS + 60_000))
    assert scenario.client.llen(scenario.key("wake")) == 0
    for _ in range(3):
        assert not rings(scenario)
    assert scenario.client.llen(scenario.key("wake")) == 1
    # Without an entry, this would wait for an hour.
    scenario.ledger.wait_for_jobs(3600)
    assert scenario.client.llen(scenario.key("wake")) == 0


def test_an_attentive_pump_that_cannot_take_everything_wakes_another(scenario: Scenario) -> None:
    """The other pump waits at the same list."""
    scenario.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    for _ in range(3):
        rings(scenario)
    scenario.ledger.wait_for_jobs(3600)
    assert len(scenario.claim(1, next_claim_in_seconds=60.0)) == 1
    assert scenario.client.llen(scenario.key("wake")) == 1


@pytest.mark.parametrize("value", ["1", b"\xff"])
def test_a_wake_list_of_another_type_is_repaired(scenario: Scenario, value: str | bytes) -> None:
    """The pump does not wait until the next script replaces the key."""
    scenario.client.set(scenario.key("wake"), value)
    scenario.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    scenario.ledger.wait_for_jobs(3600)
    rings(scenario)
    assert scenario.client.llen(scenario.key("wake")) == 1


def test_a_pump_that_does_not_claim_in_time_is_not_waited_for(scenario: Scenario) -> None:
    """The pump may have been killed."""
    rings(scenario)
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=0.04)
    scenario.wait(0.1)
    assert rings(scenario)


def test_a_pump_that_leaves_rings_for_ready_jobs(scenario: Scenario) -> None:
    """Jobs that are enqueued later also ring."""
    rings(scenario)
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    assert not scenario.rings(scenario.ledger.leave), "nothing is ready"
    assert rings(scenario)
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    assert not rings(scenario)
    assert scenario.rings(scenario.ledger.leave)


def test_a_pump_may_stop_after_a_claim(scenario: Scenario) -> None:
    """Without an announced time, the next job rings."""
    rings(scenario)
    scenario.ledger.claim(10, answers_bell=True, next_claim_in_seconds=60.0)
    scenario.ledger.claim(10)
    assert rings(scenario)


def test_a_paused_lane_does_not_ring(make_scenario: Callable[..., Scenario]) -> None:
    """It rings when the pause ends."""
    scenario = make_scenario()
    rings(scenario)
    rings(scenario)
    (claim,) = scenario.claim(1, answers_bell=True)
    scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    scenario.wait(10)
    assert not scenario.rings(scenario.sweep)
    assert not scenario.rings(scenario.ledger.leave)
    scenario.wait(20)
    assert scenario.rings(scenario.sweep)


@pytest.mark.parametrize("bell", ["", "soon", "attentive ", "-1", "9 1e400", f"{START_MS + 1} 1"])
def test_a_bell_of_another_client_counts_as_lost(scenario: Scenario, bell: str) -> None:
    """So does a bell from before the clock was set back. It must not block doorbells."""
    scenario.client.set(scenario.key("bell"), bell)
    rings(scenario)
    assert scenario.rings(scenario.sweep)
