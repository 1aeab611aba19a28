"""After the clock of Redis' host is set back, older times do not block jobs for that long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harasocial_dispatch.schemas import OutcomeClass
from support.scenario import Scenario

BACK = pytest.mark.parametrize("seconds", [2, 600, 86_400], ids=["2s", "10min", "1day"])


def set_back(scenario: Scenario, seconds: float) -> None:
    """Set the clock back between two sweeps; sweeps come every second."""
    scenario.sweep()
    scenario.wait(-seconds)
    scenario.sweep()


@BACK
def test_waiting_jobs_are_sent_at_once(scenario: Scenario, seconds: int) -> None:
    """Lanes that were served before have a time in the future."""
    ids = [scenario.enqueue(page) for page in "121212"]
    first = scenario.claim_ids(2)
    set_back(scenario, seconds)
    assert sorted(first + scenario.claim_ids()) == sorted(ids)


@BACK
def test_a_worker_is_woken_for_them(scenario: Scenario, seconds: int) -> None:
    """The state of the bell does not matter."""
    scenario.enqueue()
    scenario.sweep()
    scenario.client.set(scenario.key("bell"), "attentive", px=3_600_000)
    scenario.wait(-seconds)
    assert scenario.rings(scenario.sweep)


@pytest.mark.parametrize("seconds", [600, 86_400])
def test_a_pause_is_neither_shorter_nor_much_longer(scenario: Scenario, seconds: int) -> None:
    """The pause starts again: of 30 s, 10 s have passed, and it lasts 30 s more."""
    for _ in range(2):
        scenario.enqueue()
    (claim,) = scenario.claim(1)
    scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    scenario.wait(10)
    set_back(scenario, seconds)
    assert scenario.claim_ids() == []
    scenario.wait(29)
    assert scenario.claim_ids() == []
    scenario.wait(1)
    assert len(scenario.claim_ids()) == 1


@BACK
def test_a_page_rate_is_kept(make_scenario: Callable[..., Scenario], seconds: int) -> None:
    """4 per second, 3 at once (a burst of 4): the level of the bucket does not change."""
    scenario = make_scenario(page_rate=4.0, page_burst=4)
    for _ in range(10):
        scenario.enqueue()
    assert len(scenario.claim()) == 3
    set_back(scenario, seconds)
    found = []
    for _ in range(6):
        found.append(len(scenario.claim()))
        scenario.wait(0.25)
    assert found == [0, 1, 1, 1, 1, 1]
