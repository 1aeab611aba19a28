"""When and why a page is paused, which job is the probe, and the effect on other jobs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import pytest
from harasocial_dispatch.ledger import Claim, Result
from harasocial_dispatch.schemas import Outcome, OutcomeClass, parse_new_job
from support.scenario import QuickScenario

OK = Outcome(outcome_class=OutcomeClass.ACCEPTED)
BROKEN = Outcome(outcome_class=OutcomeClass.TRANSIENT, error_code="http_503")
RESTRICTED = Outcome(outcome_class=OutcomeClass.RESTRICTED, error_code="368")
ABOUT_PERSON = Outcome(outcome_class=OutcomeClass.PERMANENT, error_code="551", about_person=True)


def refusal(code: str) -> Outcome:
    return Outcome(outcome_class=OutcomeClass.PERMANENT, error_code=code, about_page=True)


def enqueue(scenario: QuickScenario, payloads: list[str]) -> list[str]:
    bodies: list[Any] = [
        {"recipient": {"id": "1"}, "message": {"payload_id": payload}, "page_id": "1"}
        for payload in payloads
    ]
    options = {"expires_at": "2026-03-01T00:00:00Z"}
    return scenario.ledger.enqueue([parse_new_job(body, options) for body in bodies]).job_ids


def reasons(scenario: QuickScenario) -> list[str]:
    return [pause.reason for pause in scenario.ledger.reader.pauses()]


def take(scenario: QuickScenario, jobs: int) -> list[Claim]:
    """Claim this many jobs of the page. One claim never takes all slots, so several are made."""
    claims = scenario.claim(jobs + jobs // 4)
    assert len(claims) == jobs
    return claims


def record(scenario: QuickScenario, claims: list[Claim], *outcomes: Outcome) -> None:
    """Record outcomes one by one, like calls that ended at different times."""
    for claim, outcome in zip(claims, outcomes, strict=True):
        scenario.ledger.record([scenario.result(claim, outcome)])


def record_together(scenario: QuickScenario, claims: list[Claim], *outcomes: Outcome) -> None:
    results: list[Result] = [
        scenario.result(claim, outcome) for claim, outcome in zip(claims, outcomes, strict=True)
    ]
    scenario.ledger.record(results)


# Causes of a pause


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([BROKEN] * 4, []),
        ([BROKEN] * 5, ["failing"]),
        ([BROKEN] * 4 + [OK] + [BROKEN] * 4, []),
        ([BROKEN] * 4 + [ABOUT_PERSON] + [BROKEN] * 4, []),
        ([refusal("10")] * 4, []),
        ([refusal("10")] * 5, ["refused"]),
        ([refusal("10")] * 4 + [refusal("200")] * 4, []),
        ([refusal("10")] * 4 + [OK] + [refusal("10")] * 4, []),
        # A refusal that concerns one person, or a failure, is not a success.
        ([refusal("10")] * 4 + [ABOUT_PERSON, refusal("10")], ["refused"]),
        ([refusal("10"), BROKEN] * 4 + [refusal("10")], ["refused"]),
        ([ABOUT_PERSON] * 20, []),
        ([RESTRICTED], ["restricted"]),
        ([OK] * 3 + [RESTRICTED] + [OK] * 3, ["restricted"]),
    ],
)
def test_a_page_is_paused_by(
    quick_scenario: QuickScenario, outcomes: list[Outcome], expected: list[str]
) -> None:
    """Consecutive failures, consecutive refusals with one code, or one restriction pause a page."""
    enqueue(quick_scenario, ["p"] * 30)
    record(quick_scenario, take(quick_scenario, len(outcomes)), *outcomes)
    assert reasons(quick_scenario) == expected


@pytest.mark.parametrize("failed", [BROKEN, refusal("10")])
def test_calls_that_ended_together_have_no_order(
    quick_scenario: QuickScenario, failed: Outcome
) -> None:
    """If a call of the batch succeeded, failures do not count, in any order."""
    enqueue(quick_scenario, ["p"] * 60)
    claims = take(quick_scenario, 24)
    record_together(quick_scenario, claims[:12], *[failed] * 6, OK, *[failed] * 5)
    record_together(quick_scenario, claims[12:16], *[failed] * 4)
    assert reasons(quick_scenario) == []
    record_together(quick_scenario, claims[16:17], failed)
    assert reasons(quick_scenario) == [(failed is BROKEN and "failing") or "refused"]


# Length of a pause


@pytest.mark.parametrize(
    ("outcomes", "seconds"),
    [
        ([BROKEN] * 5, [1, 2, 4, 8, 16, 30, 30]),
        ([refusal("10")] * 5, [1800, 3600, 7200, 14_400, 14_400]),
        ([RESTRICTED], [1800, 3600, 7200, 14_400, 14_400]),
    ],
)
def test_a_page_is_paused_for(
    quick_scenario: QuickScenario, outcomes: list[Outcome], seconds: list[float]
) -> None:
    """Each consecutive pause is longer, and exactly one message is sent at its end."""
    enqueue(quick_scenario, ["p"] * 50)
    record(quick_scenario, take(quick_scenario, len(outcomes)), *outcomes)
    for pause_seconds in seconds:
        quick_scenario.wait(pause_seconds - 0.001)
        assert quick_scenario.claim() == []
        quick_scenario.wait(0.001)
        probe = quick_scenario.claim()
        assert len(probe) == 1
        assert quick_scenario.claim() == []
        record(quick_scenario, probe, outcomes[0])


def test_a_restriction_during_the_recovery_continues_the_pauses(
    quick_scenario: QuickScenario,
) -> None:
    """The pauses continue to grow: 30 minutes, then one hour, then two."""
    enqueue(quick_scenario, ["p"] * 50)
    record(quick_scenario, take(quick_scenario, 1), RESTRICTED)
    for pause_seconds in (1800, 3600, 7200):
        (pause,) = quick_scenario.ledger.reader.pauses()
        assert pause.until_ms == quick_scenario.clock_ms() + pause_seconds * 1000
        quick_scenario.wait(pause_seconds)
        record(quick_scenario, quick_scenario.claim(), OK)
        record(quick_scenario, quick_scenario.claim(), RESTRICTED)


# Promise 14


def test_after_a_restriction_one_message_is_sent_per_pause(quick_scenario: QuickScenario) -> None:
    """Hundreds of calls in flight and their outcomes do not change this."""
    enqueue(quick_scenario, ["p"] * 1000)
    claims = take(quick_scenario, 300)
    random.Random(7).shuffle(claims)
    record(quick_scenario, claims[:1], RESTRICTED)
    outcomes = cycle([OK, RESTRICTED, BROKEN, ABOUT_PERSON])
    for claimed in claims[1:]:
        record(quick_scenario, [claimed], next(outcomes))
    posts: list[float] = []
    for _ in range(30 * 8):
        enqueue(quick_scenario, ["p"])
        for claim in quick_scenario.claim():
            posts.append(quick_scenario.clock_ms() / 1000)
            record(quick_scenario, [claim], RESTRICTED)
        quick_scenario.wait(120)
        quick_scenario.sweep()
    gaps = [round(later - earlier) for earlier, later in pairwise(posts)]
    assert gaps == [3600, 7200, 14_400]


@pytest.mark.parametrize("ending", ["its worker died", "refused for its person"])
def test_a_probe_without_a_result_is_followed_by_another_after_the_pause(
    quick_scenario: QuickScenario, ending: str
) -> None:
    """The next probe waits for a full pause, because each may prolong the restriction."""
    enqueue(quick_scenario, ["p"] * 5)
    record(quick_scenario, take(quick_scenario, 1), RESTRICTED)
    quick_scenario.wait(1800)
    probe = quick_scenario.claim()
    if ending != "its worker died":
        record(quick_scenario, probe, ABOUT_PERSON)
    for _ in range(17):
        quick_scenario.wait(100)
        enqueue(quick_scenario, ["p"])
        quick_scenario.sweep()
        assert quick_scenario.claim() == []
    quick_scenario.wait(100)
    assert len(quick_scenario.claim()) == 1


def test_a_page_whose_lane_ran_empty_is_probed_no_more_often(quick_scenario: QuickScenario) -> None:
    """A web app that enqueues one message at a time does not cause a probe for each."""
    enqueue(quick_scenario, ["p"])
    record(quick_scenario, quick_scenario.claim(), RESTRICTED)
    quick_scenario.wait(1800)
    probe = quick_scenario.claim()
    enqueue(quick_scenario, ["p"])
    assert quick_scenario.claim() == []
    record(quick_scenario, probe, RESTRICTED)
    assert quick_scenario.claim() == []


def test_a_restricted_probe_goes_behind_the_others(quick_scenario: QuickScenario) -> None:
    """If the code concerns only one recipient, it does not block the page."""
    ids = enqueue(quick_scenario, ["p"] * 3)
    record(quick_scenario, take(quick_scenario, 1), RESTRICTED)
    probed = []
    for pause_seconds in (1800, 3600, 7200):
        quick_scenario.wait(pause_seconds)
        (probe,) = quick_scenario.claim()
        probed.append(probe.job_id)
        record(quick_scenario, [probe], RESTRICTED)
    assert probed == ids


# The choice of the probe


def fail_until_paused(scenario: QuickScenario) -> None:
    while not reasons(scenario):
        claims = scenario.claim()
        record(scenario, claims, *[BROKEN] * len(claims))
        scenario.wait(0.01)
        scenario.sweep()


def test_a_good_job_behind_forty_that_always_fail_is_the_next_probe(
    quick_scenario: QuickScenario,
) -> None:
    """The forty jobs were first in the lane, and each has failed before."""
    enqueue(quick_scenario, [f"bad-{number}" for number in range(40)])
    fail_until_paused(quick_scenario)
    quick_scenario.wait(60)
    quick_scenario.sweep()
    (good,) = enqueue(quick_scenario, ["good"])
    assert quick_scenario.claim_ids() == [good]


@pytest.mark.parametrize("bad", [20, 49])
def test_a_probe_has_another_payload_than_those_that_failed(
    quick_scenario: QuickScenario, bad: int
) -> None:
    """The probe is a job that has not failed. Skipped jobs go to the end of the lane."""
    enqueue(quick_scenario, ["bad"] * (8 + bad))
    claims = take(quick_scenario, 8)
    record(quick_scenario, claims[:5], *[BROKEN] * 5)
    (good,) = enqueue(quick_scenario, ["good"])
    quick_scenario.wait(1)
    assert quick_scenario.claim_ids() == [good]


def test_a_page_with_nothing_but_failed_payloads_is_probed_with_one(
    quick_scenario: QuickScenario,
) -> None:
    """The failures may be caused by the page. No job is lost or duplicated."""
    ids = enqueue(quick_scenario, ["bad"] * 80)
    claims = take(quick_scenario, 5)
    record(quick_scenario, claims, *[BROKEN] * 5)
    quick_scenario.wait(1)
    (probe,) = quick_scenario.claim()
    record(quick_scenario, [probe], OK)
    sent = {probe.job_id}
    for _ in range(400):
        claims = quick_scenario.claim()
        record(quick_scenario, claims, *[OK] * len(claims))
        sent |= {claim.job_id for claim in claims}
        quick_scenario.wait(0.1)
        quick_scenario.sweep()
    assert sent == set(ids)


def test_with_the_endpoint_down_one_probe_is_sent_per_pause(quick_scenario: QuickScenario) -> None:
    """Design promise 7, for any number of waiting jobs."""
    enqueue(quick_scenario, [f"p{number % 3}" for number in range(400)])
    posts: list[float] = []
    for _ in range(600):
        for claim in quick_scenario.claim():
            posts.append(quick_scenario.clock_ms() / 1000)
            record(quick_scenario, [claim], BROKEN)
        quick_scenario.wait(0.5)
        quick_scenario.sweep()
    after = posts[-1] - posts[0]
    assert after > 200
    paused = [time for time in posts if time > posts[0] + 1]
    gaps = [later - earlier for earlier, later in pairwise(paused)]
    assert all(gap >= pause for gap, pause in zip(gaps, [4, 8, 16, *[30] * 50], strict=False))


# The effect of a few bad payloads on other jobs


class Simulation:
    """A worker with 64 slots whose calls take 50 to 250 ms; some payloads always fail."""

    def __init__(self, scenario: QuickScenario, seed: int) -> None:
        self.scenario, self.random = scenario, random.Random(seed)

    def deliver(self, payloads: list[str]) -> float:
        """Return the time (seconds) until all jobs that can be sent are sent."""
        scenario = self.scenario
        job_ids = enqueue(scenario, payloads)
        good = {
            job_id for job_id, payload in zip(job_ids, payloads, strict=True) if payload != "bad"
        }
        began, ended = scenario.clock_ms(), 0
        flights: list[tuple[int, str, Claim]] = []
        while good:
            now = scenario.clock_ms()
            over: list[Claim] = []
            while flights and flights[0][0] <= now:
                over.append(heapq.heappop(flights)[2])
            if over:
                outcomes = [
                    BROKEN if claim.body["message"]["payload_id"] == "bad" else OK for claim in over
                ]
                record_together(scenario, over, *outcomes)
                good -= {claim.job_id for claim in over}
            for claim in scenario.claim(64 - len(flights)) if len(flights) < 64 else ():
                takes = self.random.randint(50, 250)
                heapq.heappush(flights, (now + takes, claim.job_id, claim))
            ended = scenario.clock_ms()
            scenario.wait(0.04)
            if (now - began) % 1000 < 40:
                scenario.sweep()
        return (ended - began) / 1000


@pytest.mark.parametrize("where", ["everywhere", "first"])
def test_the_others_are_delivered_at_four_fifths_of_the_undisturbed_rate(
    make_quick_scenario: Callable[..., QuickScenario], where: str
) -> None:
    """5% of the payloads always fail, at the default rate."""
    pace = {"page_rate": 30.0, "page_burst": 10}
    payloads = ["good"] * 950
    undisturbed = Simulation(make_quick_scenario(**pace), seed=1).deliver(payloads)
    payloads = ["bad"] * 50 + payloads
    if where == "everywhere":
        random.Random(1).shuffle(payloads)
    disturbed = Simulation(make_quick_scenario(**pace), seed=1).deliver(payloads)
    assert disturbed <= undisturbed / 0.8
