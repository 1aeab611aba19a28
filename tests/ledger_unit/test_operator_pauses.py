"""Pauses and rates set by operators: what waits, for how long, and invalid arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from harasocial_dispatch.ledger import ALL_PAGES, MANUAL, Lifted, PageRate, Pause
from harasocial_dispatch.schemas import InvalidRequest, OutcomeClass
from support.scenario import Scenario

T = TypeVar("T")

BY = "hoa@ops-1"
START_MS = 1_769_851_800_000


def only(found: list[T]) -> T:
    (one,) = found
    return one


def test_a_paused_page_waits_until_it_is_resumed(scenario: Scenario) -> None:
    """Jobs that are enqueued during the pause wait too; other pages are sent."""
    waiting = [scenario.enqueue("1"), scenario.enqueue("1", urgent=True)]
    assert scenario.ledger.pause_page("1", reason="wrong price", by=BY) == 2
    other = scenario.enqueue("2")
    waiting.append(scenario.enqueue("1"))
    assert scenario.claim_ids() == [other]
    assert scenario.ledger.claim(1).wait_seconds is None, "no time is known"
    scenario.wait(40 * 86_400)
    assert scenario.claim_ids() == []
    assert scenario.ledger.reader.pauses() == [
        Pause(
            page_id="1",
            reason=MANUAL,
            until_ms=None,
            note="wrong price",
            by=BY,
            since_ms=START_MS,
            waiting=3,
        )
    ]
    assert scenario.ledger.resume_page("1") is Lifted.MANUAL
    assert scenario.ledger.resume_page("1") is Lifted.NOTHING
    assert scenario.ledger.reader.pauses() == []


def test_a_resumed_page_sends_at_once(scenario: Scenario) -> None:
    """A worker is woken for it."""
    job_id = scenario.enqueue()
    scenario.ledger.pause_page("1", by=BY)
    assert scenario.claim(answers_bell=True) == []
    assert scenario.rings(lambda: scenario.ledger.resume_page("1"))
    assert scenario.claim_ids() == [job_id]


def test_a_pause_with_a_time_ends_by_itself(scenario: Scenario) -> None:
    """It ends at the exact millisecond, and its entry is deleted."""
    job_id = scenario.enqueue()
    scenario.ledger.pause_page("1", by=BY, for_seconds=7200)
    assert scenario.ledger.claim(1).wait_seconds == pytest.approx(7200, abs=0.002)
    scenario.wait(7199.999)
    assert scenario.claim_ids() == []
    scenario.wait(0.001)
    assert scenario.claim_ids() == [job_id]
    assert not scenario.client.exists(scenario.key("pauses"))


def test_a_page_may_be_paused_before_it_has_jobs(scenario: Scenario) -> None:
    """No job waits yet; jobs that are enqueued later do."""
    assert scenario.ledger.pause_page("77", by=BY) == 0
    scenario.enqueue("77")
    assert scenario.claim_ids() == []


def test_calls_in_flight_end_normally(scenario: Scenario) -> None:
    """Neither a success nor a failure ends the operator's pause."""
    for _ in range(4):
        scenario.enqueue()
    claims = scenario.claim(3)
    scenario.ledger.pause_page("1", by=BY)
    assert scenario.record(claims[0], OutcomeClass.ACCEPTED)
    assert scenario.record(claims[1], OutcomeClass.TRANSIENT)
    assert scenario.record(claims[2], OutcomeClass.ACCEPTED)
    assert scenario.claim_ids() == []
    assert [pause.reason for pause in scenario.ledger.reader.pauses()] == [MANUAL]


def test_an_operators_pause_and_an_automatic_one_are_two(scenario: Scenario) -> None:
    """The operator's pause is ended first. Then the probe of the automatic pause can be sent."""
    for _ in range(3):
        scenario.enqueue()
    claim = only(scenario.claim(1))
    scenario.ledger.pause_page("1", by=BY)
    scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=900.0)
    assert [pause.reason for pause in scenario.ledger.reader.pauses()] == [MANUAL, "throttled"]
    assert scenario.ledger.resume_page("1") is Lifted.MANUAL
    assert scenario.claim() == []
    assert scenario.ledger.claim(1).wait_seconds == pytest.approx(900, abs=0.002)
    assert scenario.ledger.resume_page("1") is Lifted.AUTOMATIC
    assert len(scenario.claim()) == 1, "one probe"
    assert scenario.claim() == []


def test_a_new_token_does_not_end_an_operators_pause(scenario: Scenario) -> None:
    """It ends only the pause of the refused token."""
    scenario.enqueue()
    scenario.enqueue()
    scenario.record(only(scenario.claim(1)), OutcomeClass.AUTH)
    scenario.ledger.pause_page("1", by=BY)
    scenario.ledger.resume({"1": "old-token"})
    assert scenario.claim() == []
    assert [pause.reason for pause in scenario.ledger.reader.pauses()] == [MANUAL]


def test_all_pages_may_be_paused(scenario: Scenario) -> None:
    """No worker is woken during the pause. Pauses of single pages stay in effect after it."""
    first = scenario.enqueue("1")
    scenario.enqueue("2")
    scenario.ledger.pause_page("2", by=BY)
    scenario.ledger.pause_all(reason="wrong campaign", by=BY)
    scenario.wait(10)
    assert not scenario.rings(scenario.sweep)
    assert not scenario.rings(lambda: scenario.enqueue("3"))
    found = scenario.ledger.claim(5)
    assert (found.claims, found.wait_seconds) == ([], None)
    everything, own = scenario.ledger.reader.pauses()
    assert (everything.page_id, everything.note, everything.waiting) == (
        ALL_PAGES,
        "wrong campaign",
        3,
    )
    assert own.page_id == "2"
    assert scenario.rings(scenario.ledger.resume_all)
    assert scenario.ledger.resume_all() is False
    assert first in scenario.claim_ids()
    assert scenario.counts()["queued"] == 1


def test_a_pause_of_all_pages_may_have_a_time(scenario: Scenario) -> None:
    """The sweep wakes a worker when it is over."""
    job_id = scenario.enqueue()
    scenario.sweep()
    scenario.ledger.pause_all(by=BY, for_seconds=60)
    scenario.wait(59)
    assert scenario.claim_ids() == []
    scenario.wait(1.001)
    assert scenario.rings(scenario.sweep)
    assert scenario.claim_ids() == [job_id]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda ledger: ledger.pause_page("", by=BY), "page_id"),
        (lambda ledger: ledger.pause_page("12x", by=BY), "page_id"),
        (lambda ledger: ledger.pause_page(12, by=BY), "page_id"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=0), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=-5), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=float("nan")), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=float("inf")), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=1e9), "366 days"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds="2h"), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, reason="x" * 201), "reason"),
        (lambda ledger: ledger.pause_page("1", by=BY, reason="a\x1b[2Jb"), "reason"),
        (lambda ledger: ledger.pause_page("1", by="x\n"), "by"),
        (lambda ledger: ledger.pause_all(by=BY, for_seconds=-1), "for_seconds"),
        (lambda ledger: ledger.resume_page("x"), "page_id"),
        (lambda ledger: ledger.set_rate("x", 1, by=BY), "page_id"),
        (lambda ledger: ledger.set_rate("1", -1, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 1e6, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 1e-9, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", float("nan"), by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 10**400, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", True, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", "5", by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 5, 0, by=BY), "burst"),
        (lambda ledger: ledger.set_rate("1", 5, 10**6, by=BY), "burst"),
        (lambda ledger: ledger.set_rate("1", 5, 2.5, by=BY), "burst"),
        (lambda ledger: ledger.clear_rate("1 2"), "page_id"),
    ],
)
def test_a_wrong_request_is_named_and_changes_nothing(
    scenario: Scenario, call: Callable[[Any], object], named: str
) -> None:
    """It is checked before anything is stored (design promise 10)."""
    before = set(scenario.client.scan_iter())
    with pytest.raises(InvalidRequest, match=named):
        call(scenario.ledger)
    assert set(scenario.client.scan_iter()) == before


# Rates


def test_a_page_may_have_a_rate_of_its_own(make_scenario: Callable[..., Scenario]) -> None:
    """The other pages keep the default."""
    scenario = make_scenario(page_rate=2.0, page_burst=1)
    scenario.ledger.set_rate("1", 10, 5, by=BY)
    assert scenario.ledger.reader.rates() == [
        PageRate(page_id="1", rate=10.0, burst=5, by=BY, at_ms=START_MS)
    ]
    for _ in range(30):
        scenario.enqueue("1")
        scenario.enqueue("2")
    counted = {"1": 0, "2": 0}
    for _ in range(101):
        for claim in scenario.claim():
            counted[claim.page_id] += 1
        scenario.wait(0.02)
    assert counted == {"1": 23, "2": 5}


def test_without_a_burst_the_default_holds(make_scenario: Callable[..., Scenario]) -> None:
    """The burst of the settings applies."""
    scenario = make_scenario(page_rate=2.0, page_burst=7)
    scenario.ledger.set_rate("1", 20, by=BY)
    assert only(scenario.ledger.reader.rates()).burst == 7


@pytest.mark.parametrize("rate", [None, 0], ids=["default", "no limit"])
def test_a_new_rate_holds_at_once(scenario: Scenario, rate: float | None) -> None:
    """The old rate may have set the page's turn to the next day."""
    scenario.ledger.set_rate("1", 1 / 86_400, 1, by=BY)
    for _ in range(5):
        scenario.enqueue()
    assert len(scenario.claim(answers_bell=True)) == 1
    assert scenario.claim() == []
    if rate is None:
        assert scenario.rings(lambda: scenario.ledger.clear_rate("1"))
    else:
        assert scenario.rings(lambda: scenario.ledger.set_rate("1", rate, by=BY))
    assert len(scenario.claim()) == 4
    assert scenario.ledger.clear_rate("1") is (rate is not None)
    assert scenario.ledger.reader.rates() == []


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"rate": -1, "burst": 1}', '{"rate": 1e300, "burst": 1}',
             '{"rate": 1, "burst": 0}', '{"rate": "x", "burst": []}', "[" * 2000]
)  # fmt: skip
def test_an_invalid_rate_is_the_default(make_scenario: Callable[..., Scenario], text: str) -> None:
    """Another client wrote an invalid rate."""
    scenario = make_scenario(page_rate=2.0, page_burst=1)
    scenario.client.hset(scenario.key("rates"), "1", text)
    for _ in range(3):
        scenario.enqueue()
    assert len(scenario.claim()) == 1
    scenario.ledger.reader.rates()
