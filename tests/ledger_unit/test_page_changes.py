"""The changes of pages that the ledger reports for the log: paused, probed, resumed."""

from __future__ import annotations

import pytest
from harasocial_dispatch.ledger import PageChange
from harasocial_dispatch.schemas import OutcomeClass
from support.scenario import Scenario


@pytest.fixture
def changes(scenario: Scenario) -> list[PageChange]:
    """Return the list to which the scenario's ledger adds the reported changes."""
    found: list[PageChange] = []
    scenario.ledger._on_page_change = found.append
    return found


def seen(changes: list[PageChange]) -> list[tuple[str, str, str | None, int]]:
    """Return the changes reported since the last call."""
    found = [(each.change, each.reason, each.error_code, each.waiting) for each in changes]
    changes.clear()
    return found


def test_a_failing_page_is_reported_once_at_each_turn(
    scenario: Scenario, changes: list[PageChange]
) -> None:
    """Paused, probed, paused for longer, probed, resumed: for any number of failed calls."""
    for _ in range(12):
        scenario.enqueue()
    claims = scenario.claim(7)
    assert len(claims) == 6, "one page never takes all slots"
    for claim in claims:
        scenario.record(claim, OutcomeClass.TRANSIENT, error_code="http_503")
    (change,) = changes
    assert change.page_id == "1"
    assert change.until_ms > scenario.clock_ms()
    assert seen(changes) == [("paused", "failing", "http_503", 6)]

    scenario.wait(1.001)
    (probe,) = scenario.claim()
    assert seen(changes) == [("probed", "failing", "http_503", 5)]
    assert scenario.claim() == []
    scenario.record(probe, OutcomeClass.TRANSIENT, error_code="http_502")
    assert seen(changes) == [("paused", "failing", "http_502", 5)]

    scenario.wait(2.001)
    (probe,) = scenario.claim()
    scenario.record(probe, OutcomeClass.ACCEPTED)
    assert [change.change for change in changes] == ["probed", "resumed"]
    assert seen(changes)[1] == ("resumed", "failing", "http_502", 4)
    scenario.wait(10)
    for claim in scenario.claim():
        scenario.record(claim, OutcomeClass.ACCEPTED)
    assert seen(changes) == []


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (OutcomeClass.THROTTLED, "throttled"),
        (OutcomeClass.RESTRICTED, "restricted"),
        (OutcomeClass.AUTH, "auth"),
    ],
)
def test_calls_in_flight_together_pause_their_page_once(
    scenario: Scenario, changes: list[PageChange], outcome: OutcomeClass, reason: str
) -> None:
    """Outcomes after the first do not matter."""
    for _ in range(5):
        scenario.enqueue()
    for claim in scenario.claim(3):
        scenario.record(claim, outcome, error_code="368")
    assert [(each.change, each.reason) for each in changes] == [("paused", reason)]


def test_a_new_token_resumes_its_pages(scenario: Scenario, changes: list[PageChange]) -> None:
    """Each page is reported, and no other."""
    scenario.fail_token("1")
    scenario.fail_token("2")
    changes.clear()
    scenario.ledger.resume({"1": "old-token", "2": "another-token"})
    assert [(each.page_id, each.change, each.reason) for each in changes] == [
        ("1", "resumed", "auth")
    ]


def test_jobs_of_campaigns_count_as_waiting(scenario: Scenario, changes: list[PageChange]) -> None:
    """They count in addition to single and urgent jobs."""
    first = scenario.enqueue()
    (claim,) = scenario.claim()
    assert claim.job_id == first
    for options in ({}, {"urgent": True}, {"campaign": "a"}, {"campaign": "b"}):
        scenario.enqueue(**options)
    scenario.record(claim, OutcomeClass.RESTRICTED, error_code="368")
    # The job itself has returned to its lane.
    assert [each.waiting for each in changes] == [5]


def test_nothing_is_reported_twice_where_a_reply_was_lost(
    scenario: Scenario, changes: list[PageChange]
) -> None:
    """A batch that is recorded again has no valid claims."""
    scenario.enqueue()
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.RESTRICTED, error_code="368")
    assert scenario.record(claim, OutcomeClass.RESTRICTED, error_code="368") is False
    assert len(changes) == 1


def test_a_throttled_app_is_reported_for_its_token(
    scenario: Scenario, changes: list[PageChange]
) -> None:
    """It is reported once for any number of throttled calls, and when its probe succeeds."""
    for page_id in "123":
        scenario.enqueue(page_id)
    for claim in scenario.claim():
        scenario.record(claim, OutcomeClass.APP_THROTTLED, error_code="4")
    (change,) = changes
    assert (change.page_id, change.change) == ("token:old-token", "paused")
    assert seen(changes) == [("paused", "app_throttled", "4", 0)]
    scenario.wait(1.001)
    (probe,) = scenario.claim(default_token="old-token")
    scenario.record(probe, OutcomeClass.ACCEPTED)
    assert seen(changes) == [("resumed", "app_throttled", "4", 0)]
