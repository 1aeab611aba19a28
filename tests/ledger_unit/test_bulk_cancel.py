"""Canceling by a filter: which jobs match, what stays in their lanes, and interruptions."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import pytest
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.producer.cancellation import Cancellation
from harasocial_dispatch.schemas import OutcomeClass, State, from_ms, parse_new_job
from support.scenario import QuickScenario, Scenario

#: Longer than a field of a job's hash.
PAYLOAD, OTHER_PAYLOAD = "__hrf_f_" + "1" * 130, "__hrf_f_" + "1" * 129 + "2"


def enqueue(
    scenario: Scenario, page_id: str, count: int = 1, payload_id: str = PAYLOAD
) -> list[str]:
    body = {
        "recipient": {"id": "2560816460648749"},
        "message": {"payload_id": payload_id},
        "page_id": page_id,
    }
    return scenario.ledger.enqueue([parse_new_job(body, {}) for _ in range(count)]).job_ids


@pytest.fixture
def by_name(scenario: Scenario) -> dict[str, str]:
    """Return jobs in every state, on two pages, with two payloads, enqueued one minute apart."""
    jobs: dict[str, str] = {}
    for name, page_id, outcome in (
        ("sent", "1", OutcomeClass.ACCEPTED),
        ("failed", "1", OutcomeClass.PERMANENT),
        ("retrying", "1", OutcomeClass.TRANSIENT),
        ("sending", "1", None),
    ):
        (jobs[name],) = enqueue(scenario, page_id)
        (claim,) = scenario.claim()
        if outcome is not None:
            scenario.record(claim, outcome, error_code="http_503")
    (jobs["queued"],) = enqueue(scenario, "1")
    scenario.wait(60)
    jobs["scheduled"] = scenario.enqueue(
        "1", send_at=from_ms(scenario.clock_ms()) + timedelta(hours=1)
    )
    jobs["urgent"] = scenario.enqueue("2", urgent=True)
    (jobs["other payload"],) = enqueue(scenario, "2", payload_id=OTHER_PAYLOAD)
    return jobs


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"page_id": "1"}, {"retrying", "queued", "scheduled"}),
        ({"page_id": ["1", "2"]}, {"retrying", "queued", "scheduled", "urgent", "other payload"}),
        ({"payload_id": PAYLOAD}, {"retrying", "queued"}),
        ({"payload_id": [OTHER_PAYLOAD, "__hrf_f_1"]}, {"scheduled", "urgent", "other payload"}),
        ({"payload_id": PAYLOAD, "page_id": "2"}, set()),
        ({"state": "queued"}, {"queued", "urgent", "other payload"}),
        ({"state": ["scheduled", State.RETRYING]}, {"scheduled", "retrying"}),
        ({"state": "scheduled", "page_id": "2"}, set()),
        ({"error_code": "http_503"}, {"retrying"}),
        ({"page_id": "unknown"}, set()),
    ],
)
def test_waiting_jobs_that_fit_are_canceled_and_no_others(
    scenario: Scenario,
    producer: Producer,
    by_name: dict[str, str],
    conditions: dict[str, Any],
    expected: set[str],
) -> None:
    """A dry run finds the same jobs and cancels none."""
    before = {name: scenario.state(job_id) for name, job_id in by_name.items()}
    counts = scenario.counts()

    plan = producer.cancel_many(**conditions, dry_run=True)
    assert {name: scenario.state(job_id) for name, job_id in by_name.items()} == before
    report = producer.cancel_many(**conditions)

    after = {name: scenario.state(job_id) for name, job_id in by_name.items()}
    assert {name for name in by_name if after[name] != before[name]} == expected
    assert all(after[name] is State.CANCELLED for name in expected)
    assert plan.count == report.count == len(expected)
    assert plan.by_state == report.by_state == {
        state: number
        for state in ("scheduled", "queued", "retrying")
        if (number := sum(before[name].value == state for name in expected))
    }  # fmt: skip
    assert plan.by_payload == report.by_payload
    assert scenario.counts() == scenario.recount()
    assert counts["queued"] - scenario.counts()["queued"] == report.by_state["queued"]
    # No id is left in a lane or in `canceled_in_lane`.
    lanes = scenario.ledger.reader.waiting_by_page()
    assert sum(lanes.values()) == scenario.counts()["queued"]
    assert scenario.client.scard(scenario.key("canceled_in_lane")) == 0


def test_since_and_until_are_about_when_a_job_was_enqueued(
    scenario: Scenario, producer: Producer, by_name: dict[str, str]
) -> None:
    """The time to send does not matter."""
    now = from_ms(scenario.clock_ms())
    plan = producer.cancel_many(until=now - timedelta(seconds=30), dry_run=True)
    assert plan.by_state == {"queued": 1, "retrying": 1}
    plan = producer.cancel_many(since=now - timedelta(seconds=30), dry_run=True)
    assert plan.by_state == {"queued": 2, "scheduled": 1}
    future = now + timedelta(hours=1)
    assert producer.cancel_many(since=future).count == 0


def test_calls_in_flight_end_normally_and_are_counted(
    scenario: Scenario, producer: Producer, by_name: dict[str, str]
) -> None:
    """The holder of the claim records the result."""
    report = producer.cancel_many(page_id="1")
    assert report.in_flight == 1
    assert scenario.state(by_name["sending"]) is State.SENDING
    assert producer.cancel_many(page_id="2", payload_id=OTHER_PAYLOAD).in_flight == 0


def test_a_lane_keeps_its_order_and_the_others_are_sent(
    scenario: Scenario, producer: Producer
) -> None:
    """The list is long, and is read and changed in many steps."""
    kept, canceled = [], []
    for _ in range(150):
        kept += enqueue(scenario, "1", 3)
        canceled += enqueue(scenario, "1", 2, OTHER_PAYLOAD)

    report = producer.cancel_many(payload_id=OTHER_PAYLOAD)

    assert report.count == len(canceled)
    assert scenario.client.lrange(scenario.key("ready:1"), 0, -1) == kept
    assert scenario.claim_ids(1000) == kept
    assert {scenario.state(job_id) for job_id in canceled} == {State.CANCELLED}


def test_claims_releases_and_new_jobs_in_between_make_it_miss_nothing(scenario: Scenario) -> None:
    """Lists change at both ends during the scan. Jobs that are enqueued later are not canceled."""
    old = enqueue(scenario, "1", 900)
    scenario.wait(0.001)
    steps = Cancellation(scenario.ledger, JobFilter(page_ids=("1",))).run()
    claimed, new = [], []
    for number, _ in enumerate(steps):
        scenario.wait(0.001)
        new += enqueue(scenario, "1", 50)
        claims = scenario.claim(30)
        if number % 2:
            claimed += [claim.job_id for claim in claims]
        else:
            scenario.ledger._lost_claim = claims[0].token if claims else None

    states = [scenario.state(job_id) for job_id in old if job_id not in claimed]
    assert states
    assert set(states) == {State.CANCELLED}
    assert State.CANCELLED not in {scenario.state(job_id) for job_id in new}


def test_a_call_that_returns_its_job_meanwhile_is_canceled_by_a_further_pass(
    scenario: Scenario,
) -> None:
    """The job was neither in `due` nor in a lane when these were read."""
    job_ids = enqueue(scenario, "1", 300)
    claims = scenario.claim(10)
    steps = Cancellation(scenario.ledger, JobFilter(page_ids=("1",))).run()
    next(steps)
    for claim in claims:
        scenario.record(claim, OutcomeClass.TRANSIENT)
    *_, report = steps
    assert (report.count, report.in_flight) == (300, 0)
    assert {scenario.state(job_id) for job_id in job_ids} == {State.CANCELLED}


def test_an_interrupted_cancellation_is_one_entry_with_what_was_done(
    scenario: Scenario, producer: Producer
) -> None:
    """A second cancellation cancels the other jobs."""
    enqueue(scenario, "1", 500)
    wanted = JobFilter(page_ids=("1",))
    steps: Any = Cancellation(scenario.ledger, wanted, by="thao", via="cli").run()
    for report in itertools.islice(steps, 2):
        done = report.count
    steps.close()
    assert 0 < done < 500
    (entry,) = scenario.ledger.reader.audit()
    assert (entry.action, entry.by, entry.count) == ("cancel", "thao", done)
    assert entry.filter == {"page_id": ["1"]}

    scenario.wait(1)
    seen: list[int] = []
    rest = producer.cancel_many(page_id="1", payload_id=PAYLOAD, progress=seen.append)
    assert rest.count == 500 - done
    assert seen == sorted(seen)
    assert seen[-1] == rest.count
    assert [(e.count, e.via) for e in scenario.ledger.reader.audit()] == [
        (500 - done, "python"), (done, "cli"),
    ]  # fmt: skip
    assert producer.cancel_many(page_id="1").count == 0
    assert len(scenario.ledger.reader.audit()) == 2


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({}, "no condition"),
        ({"state": "sent"}, "the state sent cannot be canceled"),
        ({"state": ["queued", "sending"]}, "the state sending cannot be canceled"),
        ({"state": "nonsense"}, "nonsense"),
        ({"page_id": []}, "page_id has no value"),
        ({"payload_id": []}, "payload_id has no value"),
        ({"page_id": [str(number) for number in range(101)]}, "101 values"),
        ({"since": from_ms(2), "until": from_ms(1)}, "is after until"),
        ({"since": from_ms(2).replace(tzinfo=None)}, "no time zone"),
    ],
)
def test_a_wrong_filter_is_refused_and_nothing_is_canceled(
    scenario: Scenario, producer: Producer, conditions: dict[str, Any], message: str
) -> None:
    """A filter without conditions would match every job."""
    (job_id,) = enqueue(scenario, "1")
    with pytest.raises(ValueError, match=message):
        producer.cancel_many(**conditions)
    assert scenario.state(job_id) is State.QUEUED
    assert scenario.ledger.reader.audit() == []


def test_many_short_lanes_cost_few_calls(
    scenario: Scenario, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One script call scans many lists."""
    for page in range(300):
        enqueue(scenario, str(page))
    calls = 0
    run = scenario.ledger._scripts.run

    def count(connection: Any, name: str, *args: Any) -> Any:
        nonlocal calls
        calls += name == "cancel_matching"
        return run(connection, name, *args)

    monkeypatch.setattr(scenario.ledger._scripts, "run", count)
    report = producer.cancel_many(state="queued", dry_run=True)
    assert (report.count, len(report.by_page)) == (300, 300)
    assert calls <= 4


def test_far_from_both_ends_of_a_long_list_ids_stay_and_are_skipped(
    quick_scenario: QuickScenario,
) -> None:
    """To remove them would block Redis. The counts still match."""
    scenario = quick_scenario
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    head, tail = (["gone"] * 50_200 for _ in range(2))
    (canceled,) = enqueue(scenario, "1")
    kept = enqueue(scenario, "1", 1, OTHER_PAYLOAD)
    lane = scenario.key("ready:1")
    for push, ids in ((scenario.client.lpush, head), (scenario.client.rpush, tail)):
        for start in range(0, len(ids), 10_000):
            push(lane, *ids[start : start + 10_000])
    assert producer.cancel_many(payload_id=PAYLOAD).count == 1
    assert scenario.state(canceled) is State.CANCELLED
    assert scenario.client.smembers(scenario.key("canceled_in_lane")) == {canceled}
    assert scenario.counts()["queued"] == 1
    scenario.client.ltrim(lane, len(head), -len(tail) - 1)
    assert scenario.claim_ids() == kept
    assert scenario.client.scard(scenario.key("canceled_in_lane")) == 0
