"""Lanes: their order, the rate of a page, and pauses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from harasocial_dispatch.ledger import Claim, Pause
from harasocial_dispatch.schemas import OutcomeClass, State
from harasocial_dispatch.worker.outcome.classify import not_started
from support.scenario import Scenario

START_MS = 1_769_851_800_000


def pages(claims: list[Claim]) -> Counter[str]:
    return Counter(claim.page_id for claim in claims)


def only(claims: list[Claim]) -> Claim:
    (claim,) = claims
    return claim


# Turns


def test_a_lane_is_served_in_the_order_of_its_jobs(scenario: Scenario) -> None:
    """First in, first out."""
    ids = [scenario.enqueue() for _ in range(10)]
    assert scenario.claim_ids(4) + scenario.claim_ids(100) == ids


def test_urgent_jobs_go_before_the_others_of_their_page(scenario: Scenario) -> None:
    """They keep their own order."""
    first, second = scenario.enqueue(), scenario.enqueue()
    urgent, more_urgent = scenario.enqueue(urgent=True), scenario.enqueue(urgent=True)
    assert scenario.claim_ids() == [urgent, more_urgent, first, second]


def test_a_small_page_is_not_delayed_by_a_campaign(scenario: Scenario) -> None:
    """The other page may have any number of waiting jobs (design promise 8)."""
    for _ in range(200):
        scenario.enqueue("1")
    scenario.wait(0.01)
    small = scenario.enqueue("2")
    assert small in scenario.claim_ids(8)


def test_lanes_share_the_slots_evenly(scenario: Scenario) -> None:
    """Each lane leaves a fifth of the free slots to later lanes, so the shares are nearly equal."""
    for page in "123":
        for _ in range(50):
            scenario.enqueue(page)
    found = pages(scenario.claim(30))
    assert sum(found.values()) >= 28
    assert all(found[page] >= 8 for page in "123")


def test_what_one_lane_cannot_use_goes_to_the_others(scenario: Scenario) -> None:
    """No slot stays free while jobs wait."""
    scenario.enqueue("1")
    for _ in range(50):
        scenario.enqueue("2")
    found = pages(scenario.claim(10))
    assert found["1"] == 1
    assert found["2"] >= 7


def test_no_lane_takes_all_the_slots(scenario: Scenario) -> None:
    """Its calls may hang, so some slots stay free for later pages (design promise 8)."""
    for _ in range(100):
        scenario.enqueue("1")
    taken = 0
    for _ in range(20):
        taken += len(scenario.claim(10 - taken, in_flight_by_page={"1": taken}))
    assert taken < 10
    scenario.enqueue("2")
    assert pages(scenario.claim(10 - taken, in_flight_by_page={"1": taken})) == {"2": 1}


@pytest.mark.parametrize("between_seconds", [0.001, 0.000_01])
def test_with_one_slot_every_page_gets_its_turn(scenario: Scenario, between_seconds: float) -> None:
    """A lane that was just served goes to the back, even within one millisecond."""
    for page in range(20):
        for _ in range(3):
            scenario.enqueue(str(page))
    turns = []
    for _ in range(60):
        scenario.wait(between_seconds)
        turns.append(only(scenario.claim(1)).page_id)
    assert [set(turns[start : start + 20]) for start in (0, 20, 40)] == [
        {str(page) for page in range(20)}
    ] * 3


def test_with_no_lane_ready_the_claim_returns_the_wait(
    make_scenario: Callable[..., Scenario],
) -> None:
    """The wait is None if no job waits, and 0 if more jobs are ready."""
    scenario = make_scenario(page_rate=2.0)
    assert scenario.ledger.claim(5).wait_seconds is None
    scenario.enqueue()
    scenario.enqueue()
    found = scenario.ledger.claim(5)
    assert len(found.claims) == 1
    assert found.wait_seconds == pytest.approx(0.5, abs=0.002)
    scenario.wait(0.5)
    scenario.enqueue("2")
    assert scenario.ledger.claim(1).wait_seconds == 0


# Rate


def test_the_page_rate_spaces_messages_out(make_scenario: Callable[..., Scenario]) -> None:
    """4 per second: one every 250 ms, and none earlier."""
    scenario = make_scenario(page_rate=4.0)
    for _ in range(10):
        scenario.enqueue()
    times = []
    for tick in range(100):
        times += [tick * 0.025] * len(scenario.claim())
        scenario.wait(0.025)
    assert times == pytest.approx([0.25 * n for n in range(10)])


def test_the_burst_may_go_at_once(make_scenario: Callable[..., Scenario]) -> None:
    """It is reduced by what the rate allows while requests may be late. An idle page regains it."""
    scenario = make_scenario(page_rate=4.0, page_burst=4)
    for _ in range(20):
        scenario.enqueue()
    assert len(scenario.claim()) == 3
    assert scenario.claim() == []
    scenario.wait(0.25)
    assert len(scenario.claim()) == 1
    scenario.wait(0.5)
    assert len(scenario.claim()) == 2
    scenario.wait(60)
    assert len(scenario.claim()) == 3
    assert scenario.claim() == []


def test_each_page_has_a_rate_of_its_own(make_scenario: Callable[..., Scenario]) -> None:
    """A page at its limit does not delay another."""
    scenario = make_scenario(page_rate=1.0)
    for page in "12":
        scenario.enqueue(page)
        scenario.enqueue(page)
    assert pages(scenario.claim()) == {"1": 1, "2": 1}
    assert scenario.claim() == []


def test_the_rate_holds_over_an_empty_lane(make_scenario: Callable[..., Scenario]) -> None:
    """Enqueuing jobs one by one is not faster than enqueuing all at once."""
    scenario = make_scenario(page_rate=1.0)
    scenario.enqueue()
    assert len(scenario.claim()) == 1
    scenario.wait(0.5)
    scenario.enqueue()
    assert scenario.claim() == []
    scenario.wait(0.5)
    assert len(scenario.claim()) == 1


@pytest.mark.parametrize("rate", [0.1, 3.0, 7.0, 999.0])
def test_over_time_the_rate_is_kept_and_reached(
    make_scenario: Callable[..., Scenario], rate: float
) -> None:
    """Rates that do not divide a second evenly are kept too."""
    scenario = make_scenario(page_rate=rate, page_burst=5)
    total = 60
    for _ in range(total):
        scenario.enqueue(expires_at="2026-06-01T00:00:00Z")
    seconds, sent = 0.0, 0
    while sent < total:
        found = scenario.ledger.claim(total)
        sent += len(found.claims)
        assert sent <= 5 + seconds * rate + 1e-3
        if sent < total:
            assert found.wait_seconds is not None
            pause = max(found.wait_seconds, 0.001)
            scenario.wait(pause)
            seconds += pause
    assert seconds * rate <= total - 5 + 60 * 0.002 * rate + 1


# Pauses


def test_a_throttled_lane_waits_as_long_as_it_was_asked(scenario: Scenario) -> None:
    """All its jobs wait, and no other page does (design promises 5 and 8)."""
    for _ in range(3):
        scenario.enqueue("1")
    claim = only(scenario.claim(1))
    scenario.record(claim, OutcomeClass.THROTTLED, error_code="4", retry_after_seconds=30.0)
    other = scenario.enqueue("2")
    assert scenario.claim_ids() == [other]
    assert scenario.ledger.reader.pauses() == [
        Pause(
            page_id="1",
            reason="throttled",
            error_code="4",
            until_ms=START_MS + 30_000,
            since_ms=START_MS,
            waiting=3,
        )
    ]
    scenario.wait(29.999)
    assert scenario.claim() == []
    scenario.wait(0.001)
    assert len(scenario.claim()) == 1


def test_without_retry_after_the_pauses_grow(scenario: Scenario) -> None:
    """1, 2, 4 … seconds while the page stays throttled; no attempts are spent."""
    job_id = scenario.enqueue()
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        claim = only(scenario.claim())
        scenario.record(claim, OutcomeClass.THROTTLED, error_code="http_429")
        scenario.wait(pause - 0.001)
        assert scenario.claim() == []
        scenario.wait(0.001)
    claim = only(scenario.claim())
    assert (claim.job_id, claim.attempts_spent) == (job_id, 0)
    scenario.record(claim, OutcomeClass.ACCEPTED)
    scenario.wait(10)
    scenario.enqueue()
    scenario.record(only(scenario.claim()), OutcomeClass.THROTTLED)
    scenario.wait(1)
    assert len(scenario.claim()) == 1, "after a success, the pauses start again"


def test_a_paused_lane_sends_one_probe(scenario: Scenario) -> None:
    """Only one job is sent; its outcome decides."""
    for _ in range(5):
        scenario.enqueue()
    scenario.record(only(scenario.claim(1)), OutcomeClass.THROTTLED)
    scenario.wait(1)
    probe = only(scenario.claim())
    assert probe.consecutive_pauses == 1
    assert scenario.claim() == []
    scenario.wait(1)
    scenario.enqueue()
    assert scenario.claim() == [], "its call may still be in flight"
    scenario.record(probe, OutcomeClass.ACCEPTED)
    assert scenario.ledger.reader.pauses() == []
    scenario.wait(60)
    assert len(scenario.claim()) == 5


def test_a_probe_that_never_ends_is_followed_by_another(scenario: Scenario) -> None:
    """The next probe follows after the maximum time of a call: the worker may have died."""
    for _ in range(3):
        scenario.enqueue()
    scenario.record(only(scenario.claim(1)), OutcomeClass.THROTTLED)
    scenario.wait(1)
    lost = only(scenario.claim())
    scenario.wait(scenario.settings.safe_call_deadline_seconds)
    assert only(scenario.claim()).job_id != lost.job_id


def test_a_refused_token_pauses_the_page(scenario: Scenario) -> None:
    """One job fails and the others wait, so a dead token does not fail a whole campaign."""
    refused = scenario.enqueue("1")
    waiting = scenario.enqueue("1")
    scenario.record(only(scenario.claim(1)), OutcomeClass.AUTH, error_code="190", http_status=401)
    assert scenario.get(refused).error_code == "190"
    assert scenario.state(waiting) is State.QUEUED
    assert scenario.claim() == []
    (pause,) = scenario.ledger.reader.pauses()
    assert (pause.reason, pause.error_code, pause.token_fingerprint) == ("auth", "190", "old-token")
    scenario.wait(59.999)
    assert scenario.claim() == []
    scenario.wait(0.001)
    assert scenario.claim_ids() == [waiting]


def test_another_token_ends_the_pause_at_once(scenario: Scenario) -> None:
    """It also rings a doorbell, because jobs are ready."""
    scenario.enqueue("1")
    waiting = scenario.enqueue("1")
    scenario.record(only(scenario.claim(1, answers_bell=True)), OutcomeClass.AUTH)
    scenario.wait(2)
    assert scenario.rings(lambda: scenario.ledger.resume({"1": "old-token"}))
    assert scenario.ledger.reader.pauses() == []
    assert scenario.claim_ids() == [waiting]


@pytest.mark.parametrize(
    ("outcome_class", "refused"),
    [
        (OutcomeClass.AUTH, {"1": "a-third-token"}),
        (OutcomeClass.AUTH, {"2": "old-token"}),
        (OutcomeClass.AUTH, {}),
        (OutcomeClass.THROTTLED, {"1": ""}),
    ],
)
def test_a_new_token_ends_only_the_pause_of_the_old_one(
    scenario: Scenario, outcome_class: OutcomeClass, refused: dict[str, str]
) -> None:
    """A pause for the new token, or for throttling, continues."""
    scenario.enqueue("1")
    scenario.enqueue("1")
    scenario.record(only(scenario.claim(1)), outcome_class)
    assert not scenario.rings(lambda: scenario.ledger.resume(refused))
    assert scenario.claim() == []


def test_five_failures_in_a_row_pause_a_lane(scenario: Scenario) -> None:
    """Four failures do not pause the lane, and other pages continue."""
    for _ in range(10):
        scenario.enqueue("1")
    claims = scenario.claim(6)
    for claim in claims[:4]:
        scenario.record(claim, OutcomeClass.TRANSIENT)
    assert scenario.ledger.reader.pauses() == []
    scenario.record(claims[4], OutcomeClass.AMBIGUOUS, error_code="timeout")
    (pause,) = scenario.ledger.reader.pauses()
    assert (pause.reason, pause.error_code, pause.until_ms) == (
        "failing",
        "timeout",
        START_MS + 1000,
    )
    assert scenario.claim() == []
    assert len([scenario.enqueue("2"), *scenario.claim()]) == 2


@pytest.mark.parametrize("good", [OutcomeClass.ACCEPTED, OutcomeClass.PERMANENT])
def test_an_answer_from_the_page_forgets_the_failures(
    scenario: Scenario, good: OutcomeClass
) -> None:
    """A refusal of one message also counts as an answer."""
    for _ in range(9):
        scenario.enqueue()
    claims = scenario.claim(9)
    for claim in claims[:4]:
        scenario.record(claim, OutcomeClass.TRANSIENT)
    scenario.record(claims[4], good)
    for claim in claims[5:]:
        scenario.record(claim, OutcomeClass.TRANSIENT)
    assert scenario.ledger.reader.pauses() == []


def test_a_failing_lane_waits_longer_with_each_failed_probe(scenario: Scenario) -> None:
    """1, 2, 4 … 30 seconds; calls that began before the pause do not count."""
    for _ in range(20):
        scenario.enqueue()
    claims = scenario.claim(8)
    for claim in claims:
        scenario.record(claim, OutcomeClass.TRANSIENT)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        (found,) = scenario.ledger.reader.pauses()
        assert found.until_ms == scenario.clock_ms() + pause * 1000
        scenario.wait(pause)
        scenario.record(only(scenario.claim()), OutcomeClass.TRANSIENT)


def test_a_late_answer_does_not_end_a_pause(scenario: Scenario) -> None:
    """Only the probe ends it, not a call that began before the pause."""
    for _ in range(3):
        scenario.enqueue()
    early, throttled = scenario.claim(2)
    scenario.record(throttled, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    scenario.record(early, OutcomeClass.ACCEPTED)
    assert scenario.claim() == []
    assert len(scenario.ledger.reader.pauses()) == 1


def test_the_longest_wait_that_was_asked_for_holds(scenario: Scenario) -> None:
    """Two calls in flight may get different times."""
    for _ in range(3):
        scenario.enqueue()
    one, other = scenario.claim(2)
    scenario.record(one, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    scenario.record(other, OutcomeClass.THROTTLED, retry_after_seconds=5.0)
    scenario.wait(29.999)
    assert scenario.claim() == []
    scenario.wait(0.001)
    assert only(scenario.claim()).consecutive_pauses == 1


def test_a_pause_holds_for_jobs_that_come_later(scenario: Scenario) -> None:
    """The lane may have been empty in between."""
    scenario.enqueue()
    scenario.record(only(scenario.claim()), OutcomeClass.AUTH)
    scenario.enqueue()
    assert scenario.claim() == []
    scenario.wait(60)
    assert only(scenario.claim()).consecutive_pauses == 1


def test_paused_lanes_hold_no_place(scenario: Scenario) -> None:
    """A thousand closed pages do not delay an open page."""
    for page in range(100, 200):
        scenario.enqueue(str(page))
    for claim in scenario.claim(100):
        scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=60.0)
    job_id = scenario.enqueue("1")
    assert scenario.claim_ids(1) == [job_id]


def test_a_job_released_unsent_does_not_affect_its_page(scenario: Scenario) -> None:
    """The job without a token paused the page; the other jobs only return to their lane."""
    ids = [scenario.enqueue() for _ in range(3)]
    claims = scenario.claim()
    scenario.record(claims[0], OutcomeClass.AUTH, error_code="token_missing", posted=False)
    for claim in reversed(claims[1:]):
        scenario.record(claim, OutcomeClass.THROTTLED, error_code="token_missing", posted=False)
    (pause,) = scenario.ledger.reader.pauses()
    assert (pause.reason, pause.until_ms) == ("auth", START_MS + 60_000)
    assert scenario.state(ids[0]) is State.FAILED
    scenario.wait(60)
    assert scenario.claim_ids() == [ids[1]]


def test_a_job_released_unsent_keeps_what_its_latest_attempt_was(scenario: Scenario) -> None:
    """Its request began too late: no attempt, no error, and it is still a possible poison."""
    job_id = scenario.enqueue()
    scenario.claim()
    scenario.wait(61)
    scenario.sweep()
    scenario.wait(10)
    scenario.sweep()
    claim = only(scenario.claim())
    assert claim.possible_poison
    scenario.ledger.record([scenario.result(claim, not_started())])
    record = scenario.get(job_id)
    assert (record.state, record.error_code) == (State.QUEUED, "unknown_outcome")
    assert record.attempt_count == 1
    assert only(scenario.claim()).possible_poison


def test_a_page_that_works_has_no_entry(scenario: Scenario) -> None:
    """A page that works has no entry in `pauses`."""
    for _ in range(6):
        scenario.enqueue()
    for claim in scenario.claim():
        scenario.record(claim, OutcomeClass.TRANSIENT)
    scenario.wait(1)
    scenario.wait(2)
    scenario.sweep()
    for _ in range(60):
        for claim in scenario.claim():
            scenario.record(claim, OutcomeClass.ACCEPTED)
        scenario.wait(0.1)
    scenario.sweep()
    assert scenario.counts() == {"sent": 6}
    left: set[Any] = {name.removeprefix("{test}:") for name in scenario.client.scan_iter("*")}
    assert not left & {"pauses", "lanes", "due", "ready:1", "urgent:1"}
