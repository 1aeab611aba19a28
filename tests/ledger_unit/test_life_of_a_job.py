"""Each transition in a job's life: what causes it, when, and what is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import redis
from harasocial_dispatch.schemas import (
    Attempt,
    Outcome,
    OutcomeClass,
    QueueUnavailable,
    State,
    from_ms,
    parse_new_job,
)
from support.scenario import Scenario

START_MS = 1_769_851_800_000
START = from_ms(START_MS)
DAY = timedelta(days=1)


def after(seconds: float) -> Any:
    return START + timedelta(seconds=seconds)


def test_an_enqueued_job_is_queued(scenario: Scenario) -> None:
    """All given values can be read at once."""
    job_id = scenario.enqueue("500", idempotency_key="order-1001", delivery="at_most_once")
    record = scenario.get(job_id)
    assert record.state is State.QUEUED
    assert record.job["page_id"] == record.page_id == "500"
    assert record.job["message"] == {"payload_id": "__hrf_f_1"}
    assert record.idempotency_key == "order-1001"
    assert record.delivery == "at_most_once"
    assert (record.enqueued_at, record.expires_at) == (START, START + DAY)
    assert (record.attempt_count, record.attempts, record.error_code) == (0, (), None)
    assert record.next_attempt_at is record.send_at is record.finished_at is None


def test_ids_come_back_in_the_order_of_the_jobs(scenario: Scenario) -> None:
    """One call may store many jobs."""
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}}
    jobs = [parse_new_job({**body, "page_id": str(page)}) for page in range(20)]
    enqueued = scenario.ledger.enqueue(jobs)
    assert [scenario.get(job_id).page_id for job_id in enqueued.job_ids] == [
        str(page) for page in range(20)
    ]
    assert scenario.ledger.enqueue([]).job_ids == []


def test_a_job_for_later_is_scheduled_until_its_time(scenario: Scenario) -> None:
    """The sweep queues it when it is due, not earlier. Its lifetime begins then."""
    job_id = scenario.enqueue(send_at=after(60))
    record = scenario.get(job_id)
    assert record.state is State.SCHEDULED
    assert (record.send_at, record.next_attempt_at) == (after(60), after(60))
    assert record.expires_at == after(60) + DAY
    assert scenario.claim() == []
    scenario.wait(59.999)
    assert scenario.sweep().made_ready == 0
    scenario.wait(0.001)
    assert scenario.rings(lambda: scenario.sweep().made_ready == 1)
    assert scenario.state(job_id) is State.QUEUED
    assert scenario.get(job_id).next_attempt_at is None
    assert scenario.claim_ids() == [job_id]


def test_a_time_that_has_passed_is_now(scenario: Scenario) -> None:
    """Clocks differ, so such a job is sent at once."""
    assert scenario.state(scenario.enqueue(send_at=after(-60))) is State.QUEUED


def test_a_claimed_job_is_sending(scenario: Scenario) -> None:
    """The claim contains all that a worker needs, and no other worker gets the job."""
    job_id = scenario.enqueue("500", delivery="at_most_once")
    scenario.wait(10)
    (claim,) = scenario.claim()
    assert (claim.job_id, claim.page_id, claim.delivery) == (job_id, "500", "at_most_once")
    assert claim.body == scenario.get(job_id).job
    assert (claim.attempts_spent, claim.consecutive_pauses) == (0, 0)
    assert claim.claimed_at_ms == START_MS + 10_000
    assert claim.remaining_seconds == 86_390
    assert scenario.state(job_id) is State.SENDING
    assert scenario.claim() == []


def test_an_accepted_job_is_sent_and_forgotten_in_time(
    make_scenario: Callable[..., Scenario],
) -> None:
    """It is deleted SENT_TTL_SECONDS after it was sent, with its idempotency key."""
    scenario = make_scenario(sent_ttl_seconds=60)
    job_id = scenario.enqueue(idempotency_key="k")
    (claim,) = scenario.claim()
    scenario.wait(1)
    assert scenario.record(claim, OutcomeClass.ACCEPTED, http_status=200)
    record = scenario.get(job_id)
    assert (record.state, record.http_status, record.error_code) == (State.SENT, 200, None)
    assert record.finished_at == after(1)
    assert record.attempt_count == 1
    assert record.attempts == (Attempt(at=START, duration_ms=250, http_status=200),)
    scenario.wait(60)
    assert scenario.enqueue(idempotency_key="k") == job_id
    scenario.wait(0.001)
    assert scenario.ledger.reader.get(job_id) is None
    scenario.sweep()
    assert scenario.counts() == {}
    assert scenario.enqueue(idempotency_key="k") != job_id


def test_a_refused_job_has_failed(scenario: Scenario) -> None:
    """It is stored with the reason in every index, and is not sent again automatically."""
    job_id = scenario.fail("500", "10/2018278")
    record = scenario.get(job_id)
    assert (record.state, record.error_code, record.http_status) == (
        State.FAILED,
        "10/2018278",
        400,
    )
    assert (record.error_message, record.attempt_count) == ("it failed", 1)
    assert record.attempts[0].error_code == "10/2018278"
    assert record.finished_at == START
    scenario.wait(3600)
    scenario.sweep()
    assert scenario.claim() == []
    assert scenario.state(job_id) is State.FAILED


def test_a_transient_failure_is_retried_after_its_backoff(scenario: Scenario) -> None:
    """2 s after the first attempt, 4 s after the second; each attempt is stored."""
    job_id = scenario.enqueue()
    for attempt, backoff in ((1, 2), (2, 4), (3, 8)):
        (claim,) = scenario.claim()
        assert claim.attempts_spent == attempt - 1
        scenario.record(claim, OutcomeClass.TRANSIENT, http_status=500)
        record = scenario.get(job_id)
        assert (record.state, record.attempt_count) == (State.RETRYING, attempt)
        assert (record.error_code, record.error_message) == ("http_500", "it failed")
        assert record.finished_at is None
        assert record.next_attempt_at == from_ms(claim.claimed_at_ms + backoff * 1000)
        scenario.wait(backoff - 0.001)
        scenario.sweep()
        assert scenario.claim() == []
        scenario.wait(0.001)
        scenario.sweep()
        assert scenario.state(job_id) is State.QUEUED
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.ACCEPTED, http_status=200)
    record = scenario.get(job_id)
    assert (record.state, record.attempt_count) == (State.SENT, 4)
    assert (record.error_code, record.error_message) == (None, None)
    assert [attempt.http_status for attempt in record.attempts] == [500, 500, 500, 200]


def test_attempts_come_to_an_end(make_scenario: Callable[..., Scenario]) -> None:
    """The job has the code of the last attempt."""
    scenario = make_scenario(max_attempts=2, retry_base_seconds=1.0)
    job_id = scenario.enqueue()
    for _ in range(2):
        (claim,) = scenario.claim()
        scenario.record(claim, OutcomeClass.AMBIGUOUS, error_code="timeout")
        scenario.wait(1)
        scenario.sweep()
    record = scenario.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (State.FAILED, "timeout", 2)


def test_throttled_jobs_go_back_to_the_front_of_their_lane(scenario: Scenario) -> None:
    """They are released unsent, and no attempt is spent (design promise 7)."""
    first, second = scenario.enqueue(), scenario.enqueue()
    (claim,) = scenario.claim(1)
    assert claim.job_id == first
    scenario.record(claim, OutcomeClass.THROTTLED, error_code="http_429", retry_after_seconds=5.0)
    record = scenario.get(first)
    assert (record.state, record.attempt_count, record.attempts) == (State.QUEUED, 0, ())
    assert record.error_code == "http_429", "people can see why it waits"
    scenario.wait(5)
    assert scenario.claim_ids() == [first]
    scenario.wait(60)
    assert scenario.claim_ids() == [second]


def test_a_throttled_urgent_job_stays_urgent(scenario: Scenario) -> None:
    """It returns to the front of the urgent jobs."""
    first = scenario.enqueue(urgent=True)
    second = scenario.enqueue(urgent=True)
    scenario.enqueue()
    (claim,) = scenario.claim(1)
    scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=1.0)
    scenario.wait(1)
    (probe,) = scenario.claim()
    assert probe.job_id == first
    scenario.record(probe, OutcomeClass.ACCEPTED)
    assert scenario.claim_ids(1) == [second]


def test_a_job_with_a_longer_wait_than_a_lane_may_have_waits_alone(scenario: Scenario) -> None:
    """It is retrying, but no attempt was spent."""
    job_id = scenario.enqueue()
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=7200.0)
    record = scenario.get(job_id)
    assert (record.state, record.attempt_count) == (State.RETRYING, 0)
    assert record.next_attempt_at == after(7200)


def test_a_job_past_its_deadline_is_not_sent(make_scenario: Callable[..., Scenario]) -> None:
    """The deadline is EXPIRES_SECONDS after enqueuing, or its own; no attempt is made."""
    scenario = make_scenario(expires_seconds=100)
    default = scenario.enqueue(idempotency_key="k")
    own = scenario.enqueue(expires_at=after(50))
    late = scenario.enqueue(expires_at=after(-1))
    scenario.wait(49)
    assert scenario.claim_ids(1) == [default]
    scenario.wait(1)
    assert scenario.claim() == []
    for job_id in (own, late):
        record = scenario.get(job_id)
        assert (record.state, record.error_code, record.attempt_count) == (
            State.FAILED,
            "expired",
            0,
        )
        assert record.error_message == "the deadline passed before the message was sent"
    assert scenario.enqueue(idempotency_key="k") == default


@pytest.mark.parametrize("state", [State.SCHEDULED, State.QUEUED, State.RETRYING])
def test_a_job_not_sent_yet_can_be_canceled(scenario: Scenario, state: State) -> None:
    """It is never sent, and is deleted after its retention."""
    job_id = scenario.enqueue(
        send_at=after(60) if state is State.SCHEDULED else None, idempotency_key="k"
    )
    if state is State.RETRYING:
        (claim,) = scenario.claim()
        scenario.record(claim, OutcomeClass.TRANSIENT)
    assert scenario.state(job_id) is state
    assert scenario.ledger.cancel([job_id]) == [State.CANCELLED]
    record = scenario.get(job_id)
    assert (record.state, record.finished_at, record.next_attempt_at) == (
        State.CANCELLED,
        START,
        None,
    )
    scenario.wait(120)
    scenario.sweep()
    assert scenario.claim() == []
    assert scenario.state(job_id) is State.CANCELLED
    assert scenario.counts() == {"cancelled": 1}
    assert scenario.enqueue(idempotency_key="k") == job_id
    scenario.wait(scenario.settings.failed_ttl_seconds)
    assert scenario.ledger.reader.get(job_id) is None
    scenario.sweep()
    assert scenario.counts() == {}


@pytest.mark.parametrize(
    ("outcome_class", "state"),
    [
        (None, State.SENDING),
        (OutcomeClass.ACCEPTED, State.SENT),
        (OutcomeClass.PERMANENT, State.FAILED),
    ],
)
def test_a_job_in_flight_or_ended_cannot_be_canceled(
    scenario: Scenario, outcome_class: OutcomeClass | None, state: State
) -> None:
    """The call returns its state and changes nothing."""
    job_id = scenario.enqueue()
    (claim,) = scenario.claim()
    if outcome_class is not None:
        scenario.record(claim, outcome_class)
    before = scenario.get(job_id)
    assert scenario.ledger.cancel([job_id, "unknown"]) == [state, None]
    assert scenario.get(job_id) == before


def test_a_canceled_job_is_canceled_once(scenario: Scenario) -> None:
    """A second cancellation is not an error and is not counted."""
    job_id = scenario.enqueue()
    assert scenario.ledger.cancel([job_id, job_id]) == [State.CANCELLED, State.CANCELLED]
    assert scenario.counts() == {"cancelled": 1}


def test_a_canceled_job_whose_retention_ended_leaves_no_trace_in_its_lane(
    make_scenario: Callable[..., Scenario],
) -> None:
    """Its id in the lane may outlive it; that causes no failure."""
    scenario = make_scenario(failed_ttl_seconds=10)
    scenario.ledger.cancel([scenario.enqueue()])
    scenario.wait(60)
    assert scenario.claim() == []
    scenario.sweep()
    assert scenario.counts() == {}
    assert scenario.ledger.reader.count_by_error_code().by_name == {}
    kept = ("audit", "audit_entries", "bell", "clock", "counts", "version")
    assert set(scenario.client.scan_iter("*")) <= {scenario.key(name) for name in kept}


def test_a_failed_job_can_be_replayed(scenario: Scenario) -> None:
    """It gets the full number of attempts and a new deadline; its history is kept."""
    job_id = scenario.fail(expires_at=after(10), idempotency_key="k")
    scenario.wait(100)
    assert scenario.rings(lambda: scenario.ledger.replay([job_id]) == [State.FAILED])
    record = scenario.get(job_id)
    assert (record.state, record.attempt_count) == (State.QUEUED, 1)
    assert (record.error_code, record.error_message, record.http_status) == (None, None, None)
    assert record.finished_at is None
    assert record.expires_at == after(100) + DAY
    assert [attempt.error_code for attempt in record.attempts] == ["551"]
    assert scenario.ledger.reader.count_by_error_code().by_name == {}
    (claim,) = scenario.claim()
    assert (claim.job_id, claim.attempts_spent) == (job_id, 0)
    scenario.record(claim, OutcomeClass.ACCEPTED)
    assert scenario.state(job_id) is State.SENT
    assert scenario.enqueue(idempotency_key="k") == job_id


@pytest.mark.parametrize("state", [s for s in State if s is not State.FAILED])
def test_only_failed_jobs_are_replayed(scenario: Scenario, state: State) -> None:
    """A sent job is never sent again (design promise 4)."""
    job_id = scenario.enqueue(send_at=after(60) if state is State.SCHEDULED else None)
    if state is State.CANCELLED:
        scenario.ledger.cancel([job_id])
    claims = scenario.claim() if state in (State.SENDING, State.RETRYING, State.SENT) else []
    for claim in claims:
        if state is State.SENT:
            scenario.record(claim, OutcomeClass.ACCEPTED)
        if state is State.RETRYING:
            scenario.record(claim, OutcomeClass.TRANSIENT)
    before = scenario.get(job_id)
    assert before.state is state
    assert scenario.ledger.replay([job_id, "unknown"]) == [state, None]
    assert scenario.get(job_id) == before


def test_replaying_twice_queues_once(scenario: Scenario) -> None:
    """At the second replay, the job is no longer failed."""
    job_id = scenario.fail()
    assert scenario.ledger.replay([job_id, job_id]) == [State.FAILED, State.QUEUED]
    assert scenario.claim_ids() == [job_id]


def test_a_replayed_urgent_job_is_urgent_again(scenario: Scenario) -> None:
    """It is queued as it was enqueued."""
    urgent = scenario.fail(urgent=True)
    waiting = scenario.enqueue()
    scenario.ledger.replay([urgent])
    assert scenario.claim_ids() == [urgent, waiting]


@pytest.mark.parametrize(
    ("options", "state"),
    [({}, State.RETRYING), ({"delivery": "at_most_once"}, State.FAILED)],
    ids=["at_least_once", "at_most_once"],
)
def test_a_lease_that_ends_leaves_an_unknown_outcome(
    scenario: Scenario, options: dict[str, str], state: State
) -> None:
    """The worker died: the job is sent again or fails, depending on its delivery."""
    job_id = scenario.enqueue("500", **options)
    scenario.claim()
    scenario.wait(59.999)
    assert scenario.sweep().claims == []
    scenario.wait(0.001)
    assert scenario.sweep(end_leases=False).claims == []
    (claim,) = scenario.sweep().claims
    assert (claim.job_id, claim.page_id, claim.lease_ended) == (job_id, "500", True)
    record = scenario.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (state, "unknown_outcome", 1)
    (attempt,) = record.attempts
    assert (attempt.error_code, attempt.duration_ms) == ("unknown_outcome", None)
    assert attempt.error_message == record.error_message
    if state is State.RETRYING:
        assert record.next_attempt_at == after(60 + 2), "the longest wait, without jitter"
        scenario.wait(2)
        scenario.sweep()
        assert scenario.claim_ids() == [job_id]
    else:
        assert scenario.ledger.reader.count_by_error_code().by_name == {"unknown_outcome": 1}


def test_lost_leases_come_to_an_end_too(make_scenario: Callable[..., Scenario]) -> None:
    """A message that kills its worker each time must not be sent forever."""
    scenario = make_scenario(max_attempts=2)
    job_id = scenario.enqueue()
    for _ in range(2):
        scenario.claim()
        scenario.wait(60)
        scenario.sweep()
        scenario.wait(2)
        scenario.sweep()
    record = scenario.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (
        State.FAILED,
        "unknown_outcome",
        2,
    )


def test_a_replayed_job_may_lose_its_worker_again(make_scenario: Callable[..., Scenario]) -> None:
    """Attempts before the replay do not count, also for the sweep."""
    scenario = make_scenario(max_attempts=2)
    job_id = scenario.fail()
    scenario.ledger.replay([job_id])
    scenario.claim()
    scenario.wait(60)
    scenario.sweep()
    assert (scenario.state(job_id), scenario.get(job_id).attempt_count) == (State.RETRYING, 2)


def test_a_lost_lease_is_not_retried_after_the_deadline(scenario: Scenario) -> None:
    """Design promise 5 also applies to the sweep."""
    job_id = scenario.enqueue(expires_at=after(60))
    scenario.claim()
    scenario.wait(60)
    scenario.sweep()
    assert scenario.state(job_id) is State.FAILED


@pytest.mark.parametrize("token", ["", "another", "*"])
def test_only_the_holder_of_the_claim_records(scenario: Scenario, token: str) -> None:
    """A wrong token changes nothing (design promise 6)."""
    job_id = scenario.enqueue()
    (claim,) = scenario.claim()
    before = scenario.client.hgetall(scenario.key(f"job:{job_id}"))
    for outcome_class in OutcomeClass:
        assert not scenario.record(replace(claim, token=token), outcome_class)
    assert scenario.client.hgetall(scenario.key(f"job:{job_id}")) == before
    assert scenario.client.hgetall(scenario.key("pauses")) == {}
    assert scenario.record(claim, OutcomeClass.ACCEPTED)


def test_a_holder_whose_lease_ended_records_nothing(scenario: Scenario) -> None:
    """Another worker may send the job now, and only its claim counts."""
    job_id = scenario.enqueue()
    (late,) = scenario.claim()
    scenario.wait(60)
    scenario.sweep()
    assert not scenario.record(late, OutcomeClass.ACCEPTED)
    scenario.wait(2)
    scenario.sweep()
    (current,) = scenario.claim()
    assert not scenario.record(late, OutcomeClass.PERMANENT)
    assert scenario.state(job_id) is State.SENDING
    assert scenario.record(current, OutcomeClass.ACCEPTED)
    assert not scenario.record(current, OutcomeClass.ACCEPTED), "once is enough"
    assert scenario.get(job_id).attempt_count == 2


def test_a_late_holder_may_record_before_the_next_sweep(scenario: Scenario) -> None:
    """The claim is still valid."""
    job_id = scenario.enqueue()
    (claim,) = scenario.claim()
    scenario.wait(3600)
    assert scenario.record(claim, OutcomeClass.ACCEPTED)
    assert scenario.state(job_id) is State.SENT
    assert scenario.sweep().claims == []


def test_one_call_records_many_jobs_and_returns_which_claims_were_valid(scenario: Scenario) -> None:
    """A lost claim in a batch does not affect the other results."""
    ids = [scenario.enqueue() for _ in range(3)]
    claims = scenario.claim()
    claims[1] = replace(claims[1], token="lost")
    accepted = Outcome(outcome_class=OutcomeClass.ACCEPTED, http_status=200)
    assert scenario.ledger.record([scenario.result(claim, accepted) for claim in claims]) == [
        True,
        False,
        True,
    ]
    assert [scenario.state(job_id) for job_id in ids] == [State.SENT, State.SENDING, State.SENT]
    assert scenario.ledger.record([]) == []


def test_a_lease_is_counted_from_before_it_was_asked_for(scenario: Scenario) -> None:
    """Even if the reply to the claim is slow, a call ends before its lease."""
    scenario.enqueue()
    before = time.monotonic()
    (claim,) = scenario.claim()
    assert before <= claim.claimed_at <= time.monotonic()
    assert claim.claimed_at_ms == scenario.clock_ms()


def test_a_claim_whose_reply_was_lost_is_released(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next claim gets the same jobs in the same order, with no attempt spent."""
    ids = [scenario.enqueue() for _ in range(3)]
    run = scenario.ledger._scripts.and_ring

    def claims_and_loses_the_reply(name: str, *args: Any) -> Any:
        run(name, *args)
        raise redis.ConnectionError("reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(scenario.ledger._scripts, "and_ring", claims_and_loses_the_reply)
        with pytest.raises(QueueUnavailable):
            scenario.claim()
    assert scenario.state(ids[0]) is State.SENDING
    claims = scenario.claim()
    assert [claim.job_id for claim in claims] == ids
    assert all(claim.attempts_spent == 0 for claim in claims)
    assert scenario.counts() == {"sending": 3}


def test_failed_jobs_are_kept_for_their_retention_and_no_longer(
    make_scenario: Callable[..., Scenario],
) -> None:
    """They are searchable until then (design promise 12), and completely deleted after it."""
    scenario = make_scenario(failed_ttl_seconds=1000)
    job_id = scenario.fail(idempotency_key="k")
    scenario.wait(999)
    younger = scenario.fail()
    scenario.sweep()
    assert scenario.ledger.reader.count_by_error_code().by_name == {"551": 2}
    assert scenario.enqueue(idempotency_key="k") == job_id
    scenario.wait(1)
    scenario.sweep()
    assert scenario.ledger.reader.get(job_id) is None
    assert scenario.ledger.reader.count_by_error_code().by_name == {"551": 1}
    assert scenario.counts() == {"failed": 1}
    assert scenario.enqueue(idempotency_key="k") != job_id
    scenario.wait(999)
    scenario.sweep()
    assert scenario.ledger.reader.get(younger) is None
    left = set(scenario.client.scan_iter("*"))
    assert not [name for name in left if "failed" in name], left


def test_fifty_attempts_are_kept(make_scenario: Callable[..., Scenario]) -> None:
    """The latest are kept, recorded by a worker or after a lost lease; all are counted."""
    scenario = make_scenario(max_attempts=100, retry_base_seconds=0.01, retry_max_seconds=0.01)
    job_id = scenario.enqueue()
    for attempt in range(1, 64):
        (claim,) = scenario.claim()
        if attempt % 3 == 0:
            scenario.wait(60)
            scenario.sweep()
        else:
            scenario.record(claim, OutcomeClass.AMBIGUOUS, error_code=f"timeout_{attempt}")
            scenario.client.delete(scenario.key("pauses"))
        scenario.wait(1)
        scenario.sweep()
    record = scenario.get(job_id)
    assert record.attempt_count == 63
    assert [attempt.error_code for attempt in record.attempts] == [
        "unknown_outcome" if attempt % 3 == 0 else f"timeout_{attempt}" for attempt in range(14, 64)
    ]
