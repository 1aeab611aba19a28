"""Each arrow of the picture of a job's life: what moves it, when, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from .conftest import Story

START_MS = 1_769_851_800_000
START = from_ms(START_MS)
DAY = timedelta(days=1)


def after(seconds: float) -> Any:
    return START + timedelta(seconds=seconds)


def test_an_enqueued_job_is_queued(story: Story):
    """And all that was handed in can be looked up at once."""
    job_id = story.enqueue("500", idempotency_key="order-1001", delivery="at_most_once")
    record = story.get(job_id)
    assert record.state is State.QUEUED
    assert record.job["page_id"] == record.page_id == "500"
    assert record.job["message"] == {"payload_id": "__hrf_f_1"}
    assert record.idempotency_key == "order-1001"
    assert record.delivery == "at_most_once"
    assert (record.enqueued_at, record.expires_at) == (START, START + DAY)
    assert (record.attempt_count, record.attempts, record.error_code) == (0, (), None)
    assert record.next_attempt_at is record.send_at is record.finished_at is None


def test_ids_come_back_in_the_order_of_the_jobs(story: Story):
    """One call may store many."""
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}}
    jobs = [parse_new_job({**body, "page_id": str(page)}) for page in range(20)]
    enqueued = story.ledger.enqueue(jobs)
    assert [story.get(job_id).page_id for job_id in enqueued.job_ids] == [
        str(page) for page in range(20)
    ]
    assert story.ledger.enqueue([]).job_ids == []


def test_a_job_for_later_is_scheduled_until_its_time(story: Story):
    """The sweep moves it when its time has come, not before; its life begins then."""
    job_id = story.enqueue(send_at=after(60))
    record = story.get(job_id)
    assert record.state is State.SCHEDULED
    assert (record.send_at, record.next_attempt_at) == (after(60), after(60))
    assert record.expires_at == after(60) + DAY
    assert story.claim() == []
    story.wait(59.999)
    assert story.sweep().made_ready == 0
    story.wait(0.001)
    assert story.rings(lambda: story.sweep().made_ready == 1)
    assert story.state(job_id) is State.QUEUED
    assert story.get(job_id).next_attempt_at is None
    assert story.claim_ids() == [job_id]


def test_a_time_that_has_passed_is_now(story: Story):
    """Clocks differ; such a job simply goes out."""
    assert story.state(story.enqueue(send_at=after(-60))) is State.QUEUED


def test_a_claimed_job_is_sending(story: Story):
    """The claim carries all that a worker needs, and nobody else gets the job."""
    job_id = story.enqueue("500", delivery="at_most_once")
    story.wait(10)
    (claim,) = story.claim()
    assert (claim.job_id, claim.page_id, claim.delivery) == (job_id, "500", "at_most_once")
    assert claim.body == story.get(job_id).job
    assert (claim.attempts_spent, claim.consecutive_pauses) == (0, 0)
    assert claim.claimed_at_ms == START_MS + 10_000
    assert claim.remaining_seconds == 86_390
    assert story.state(job_id) is State.SENDING
    assert story.claim() == []


def test_an_accepted_job_is_sent_and_forgotten_in_time(make_story: Callable[..., Story]):
    """SENT_TTL_SECONDS after it was sent, with its idempotency key."""
    story = make_story(sent_ttl_seconds=60)
    job_id = story.enqueue(idempotency_key="k")
    (claim,) = story.claim()
    story.wait(1)
    assert story.record(claim, OutcomeClass.ACCEPTED, http_status=200)
    record = story.get(job_id)
    assert (record.state, record.http_status, record.error_code) == (State.SENT, 200, None)
    assert record.finished_at == after(1)
    assert record.attempt_count == 1
    assert record.attempts == (Attempt(at=START, duration_ms=250, http_status=200),)
    story.wait(60)
    assert story.enqueue(idempotency_key="k") == job_id
    story.wait(0.001)
    assert story.ledger.reader.get(job_id) is None
    story.sweep()
    assert story.counts() == {}
    assert story.enqueue(idempotency_key="k") != job_id


def test_a_refused_job_has_failed(story: Story):
    """With the reason, in every index; it never moves by itself again."""
    job_id = story.fail("500", "10/2018278")
    record = story.get(job_id)
    assert (record.state, record.error_code, record.http_status) == (
        State.FAILED,
        "10/2018278",
        400,
    )
    assert (record.error_message, record.attempt_count) == ("it failed", 1)
    assert record.attempts[0].error_code == "10/2018278"
    assert record.finished_at == START
    story.wait(3600)
    story.sweep()
    assert story.claim() == []
    assert story.state(job_id) is State.FAILED


def test_a_transient_failure_is_retried_after_its_backoff(story: Story):
    """2 s after the first attempt, 4 s after the second; each attempt is kept."""
    job_id = story.enqueue()
    for attempt, backoff in ((1, 2), (2, 4), (3, 8)):
        (claim,) = story.claim()
        assert claim.attempts_spent == attempt - 1
        story.record(claim, OutcomeClass.TRANSIENT, http_status=500)
        record = story.get(job_id)
        assert (record.state, record.attempt_count) == (State.RETRYING, attempt)
        assert (record.error_code, record.error_message) == ("http_500", "it failed")
        assert record.finished_at is None
        assert record.next_attempt_at == from_ms(claim.claimed_at_ms + backoff * 1000)
        story.wait(backoff - 0.001)
        story.sweep()
        assert story.claim() == []
        story.wait(0.001)
        story.sweep()
        assert story.state(job_id) is State.QUEUED
    (claim,) = story.claim()
    story.record(claim, OutcomeClass.ACCEPTED, http_status=200)
    record = story.get(job_id)
    assert (record.state, record.attempt_count) == (State.SENT, 4)
    assert (record.error_code, record.error_message) == (None, None)
    assert [attempt.http_status for attempt in record.attempts] == [500, 500, 500, 200]


def test_attempts_come_to_an_end(make_story: Callable[..., Story]):
    """The last one's code is the job's."""
    story = make_story(max_attempts=2, retry_base_seconds=1.0)
    job_id = story.enqueue()
    for _ in range(2):
        (claim,) = story.claim()
        story.record(claim, OutcomeClass.AMBIGUOUS, error_code="timeout")
        story.wait(1)
        story.sweep()
    record = story.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (State.FAILED, "timeout", 2)


def test_throttled_jobs_go_back_to_the_front_of_their_lane(story: Story):
    """Unsent, without an attempt spent (design promise 7)."""
    first, second = story.enqueue(), story.enqueue()
    (claim,) = story.claim(1)
    assert claim.job_id == first
    story.record(claim, OutcomeClass.THROTTLED, error_code="http_429", retry_after_seconds=5.0)
    record = story.get(first)
    assert (record.state, record.attempt_count, record.attempts) == (State.QUEUED, 0, ())
    assert record.error_code == "http_429", "so that people see why it waits"
    story.wait(5)
    assert story.claim_ids() == [first]
    story.wait(60)
    assert story.claim_ids() == [second]


def test_a_throttled_urgent_job_stays_urgent(story: Story):
    """It goes back to the front of the urgent ones."""
    first = story.enqueue(urgent=True)
    second = story.enqueue(urgent=True)
    story.enqueue()
    (claim,) = story.claim(1)
    story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=1.0)
    story.wait(1)
    (probe,) = story.claim()
    assert probe.job_id == first
    story.record(probe, OutcomeClass.ACCEPTED)
    assert story.claim_ids(1) == [second]


def test_told_to_wait_longer_than_a_lane_may_a_job_waits_by_itself(story: Story):
    """Retrying, though no attempt was spent."""
    job_id = story.enqueue()
    (claim,) = story.claim()
    story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=7200.0)
    record = story.get(job_id)
    assert (record.state, record.attempt_count) == (State.RETRYING, 0)
    assert record.next_attempt_at == after(7200)


def test_a_job_past_its_deadline_is_not_sent(make_story: Callable[..., Story]):
    """EXPIRES_SECONDS after its enqueueing, or at its own time; no attempt is made."""
    story = make_story(expires_seconds=100)
    default = story.enqueue(idempotency_key="k")
    own = story.enqueue(expires_at=after(50))
    late = story.enqueue(expires_at=after(-1))
    story.wait(49)
    assert story.claim_ids(1) == [default]
    story.wait(1)
    assert story.claim() == []
    for job_id in (own, late):
        record = story.get(job_id)
        assert (record.state, record.error_code, record.attempt_count) == (
            State.FAILED,
            "expired",
            0,
        )
        assert record.error_message == "its deadline passed before it could be sent"
    assert story.enqueue(idempotency_key="k") == default


@pytest.mark.parametrize("state", [State.SCHEDULED, State.QUEUED, State.RETRYING])
def test_a_job_not_sent_yet_can_be_cancelled(story: Story, state: State):
    """It never goes out, and is forgotten in time."""
    job_id = story.enqueue(
        send_at=after(60) if state is State.SCHEDULED else None, idempotency_key="k"
    )
    if state is State.RETRYING:
        (claim,) = story.claim()
        story.record(claim, OutcomeClass.TRANSIENT)
    assert story.state(job_id) is state
    assert story.ledger.cancel([job_id]) == [State.CANCELLED]
    record = story.get(job_id)
    assert (record.state, record.finished_at, record.next_attempt_at) == (
        State.CANCELLED,
        START,
        None,
    )
    story.wait(120)
    story.sweep()
    assert story.claim() == []
    assert story.state(job_id) is State.CANCELLED
    assert story.counts() == {"cancelled": 1}
    assert story.enqueue(idempotency_key="k") == job_id
    story.wait(story.settings.failed_ttl_seconds)
    assert story.ledger.reader.get(job_id) is None
    story.sweep()
    assert story.counts() == {}


@pytest.mark.parametrize(
    ("outcome_class", "state"),
    [
        (None, State.SENDING),
        (OutcomeClass.ACCEPTED, State.SENT),
        (OutcomeClass.PERMANENT, State.FAILED),
    ],
)
def test_what_is_under_way_or_ended_cannot_be_cancelled(
    story: Story, outcome_class: OutcomeClass | None, state: State
):
    """The answer is where it stands; nothing changes."""
    job_id = story.enqueue()
    (claim,) = story.claim()
    if outcome_class is not None:
        story.record(claim, outcome_class)
    before = story.get(job_id)
    assert story.ledger.cancel([job_id, "unknown"]) == [state, None]
    assert story.get(job_id) == before


def test_a_cancelled_job_is_cancelled_once(story: Story):
    """Again is no error, and counts once."""
    job_id = story.enqueue()
    assert story.ledger.cancel([job_id, job_id]) == [State.CANCELLED, State.CANCELLED]
    assert story.counts() == {"cancelled": 1}


def test_a_cancelled_job_whose_retention_ended_leaves_no_trace_in_its_lane(
    make_story: Callable[..., Story],
):
    """Its place in the lane may outlive it; that is nobody's failure."""
    story = make_story(failed_ttl_seconds=10)
    story.ledger.cancel([story.enqueue()])
    story.wait(60)
    assert story.claim() == []
    story.sweep()
    assert story.counts() == {}
    assert story.ledger.reader.count_by_error_code().by_name == {}
    kept = {story.key(name) for name in ("bell", "clock", "counts", "version")}
    assert set(story.client.scan_iter("*")) <= kept


def test_a_failed_job_can_be_replayed(story: Story):
    """With all its attempts and a new deadline; what was before stays to be seen."""
    job_id = story.fail(expires_at=after(10), idempotency_key="k")
    story.wait(100)
    assert story.rings(lambda: story.ledger.replay([job_id]) == [State.FAILED])
    record = story.get(job_id)
    assert (record.state, record.attempt_count) == (State.QUEUED, 1)
    assert (record.error_code, record.error_message, record.http_status) == (None, None, None)
    assert record.finished_at is None
    assert record.expires_at == after(100) + DAY
    assert [attempt.error_code for attempt in record.attempts] == ["551"]
    assert story.ledger.reader.count_by_error_code().by_name == {}
    (claim,) = story.claim()
    assert (claim.job_id, claim.attempts_spent) == (job_id, 0)
    story.record(claim, OutcomeClass.ACCEPTED)
    assert story.state(job_id) is State.SENT
    assert story.enqueue(idempotency_key="k") == job_id


@pytest.mark.parametrize("state", [s for s in State if s is not State.FAILED])
def test_only_failed_jobs_are_replayed(story: Story, state: State):
    """A sent job is never sent again (design promise 4)."""
    job_id = story.enqueue(send_at=after(60) if state is State.SCHEDULED else None)
    if state is State.CANCELLED:
        story.ledger.cancel([job_id])
    claims = story.claim() if state in (State.SENDING, State.RETRYING, State.SENT) else []
    for claim in claims:
        if state is State.SENT:
            story.record(claim, OutcomeClass.ACCEPTED)
        if state is State.RETRYING:
            story.record(claim, OutcomeClass.TRANSIENT)
    before = story.get(job_id)
    assert before.state is state
    assert story.ledger.replay([job_id, "unknown"]) == [state, None]
    assert story.get(job_id) == before


def test_replaying_twice_queues_once(story: Story):
    """The second time, the job is not failed any more."""
    job_id = story.fail()
    assert story.ledger.replay([job_id, job_id]) == [State.FAILED, State.QUEUED]
    assert story.claim_ids() == [job_id]


def test_a_replayed_urgent_job_is_urgent_again(story: Story):
    """As it was enqueued."""
    urgent = story.fail(urgent=True)
    waiting = story.enqueue()
    story.ledger.replay([urgent])
    assert story.claim_ids() == [urgent, waiting]


@pytest.mark.parametrize(
    ("options", "state"),
    [({}, State.RETRYING), ({"delivery": "at_most_once"}, State.FAILED)],
    ids=["at_least_once", "at_most_once"],
)
def test_a_lease_that_ends_leaves_an_unknown_outcome(
    story: Story, options: dict[str, str], state: State
):
    """Its worker died: sent again, or given up, as the job wanted it."""
    job_id = story.enqueue("500", **options)
    story.claim()
    story.wait(59.999)
    assert story.sweep().claims == []
    story.wait(0.001)
    assert story.sweep(end_leases=False).claims == []
    (claim,) = story.sweep().claims
    assert (claim.job_id, claim.page_id, claim.lease_ended) == (job_id, "500", True)
    record = story.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (state, "unknown_outcome", 1)
    (attempt,) = record.attempts
    assert (attempt.error_code, attempt.duration_ms) == ("unknown_outcome", None)
    assert attempt.error_message == record.error_message
    if state is State.RETRYING:
        assert record.next_attempt_at == after(60 + 2), "the longest wait, without jitter"
        story.wait(2)
        story.sweep()
        assert story.claim_ids() == [job_id]
    else:
        assert story.ledger.reader.count_by_error_code().by_name == {"unknown_outcome": 1}


def test_lost_leases_come_to_an_end_too(make_story: Callable[..., Story]):
    """A message that kills its worker each time must not go round for ever."""
    story = make_story(max_attempts=2)
    job_id = story.enqueue()
    for _ in range(2):
        story.claim()
        story.wait(60)
        story.sweep()
        story.wait(2)
        story.sweep()
    record = story.get(job_id)
    assert (record.state, record.error_code, record.attempt_count) == (
        State.FAILED,
        "unknown_outcome",
        2,
    )


def test_a_replayed_job_may_lose_its_worker_again(make_story: Callable[..., Story]):
    """The attempts of before the replay count no more, for the sweep either."""
    story = make_story(max_attempts=2)
    job_id = story.fail()
    story.ledger.replay([job_id])
    story.claim()
    story.wait(60)
    story.sweep()
    assert (story.state(job_id), story.get(job_id).attempt_count) == (State.RETRYING, 2)


def test_a_lost_lease_is_not_retried_after_the_deadline(story: Story):
    """Design promise 5 holds for the sweep as well."""
    job_id = story.enqueue(expires_at=after(60))
    story.claim()
    story.wait(60)
    story.sweep()
    assert story.state(job_id) is State.FAILED


@pytest.mark.parametrize("token", ["", "another", "*"])
def test_only_the_holder_of_the_claim_records(story: Story, token: str):
    """A wrong token changes nothing at all (design promise 6)."""
    job_id = story.enqueue()
    (claim,) = story.claim()
    before = story.client.hgetall(story.key(f"job:{job_id}"))
    for outcome_class in OutcomeClass:
        assert not story.record(replace(claim, token=token), outcome_class)
    assert story.client.hgetall(story.key(f"job:{job_id}")) == before
    assert story.client.hgetall(story.key("pauses")) == {}
    assert story.record(claim, OutcomeClass.ACCEPTED)


def test_a_holder_whose_lease_ended_records_nothing(story: Story):
    """Another worker may be sending by now; its claim counts."""
    job_id = story.enqueue()
    (late,) = story.claim()
    story.wait(60)
    story.sweep()
    assert not story.record(late, OutcomeClass.ACCEPTED)
    story.wait(2)
    story.sweep()
    (current,) = story.claim()
    assert not story.record(late, OutcomeClass.PERMANENT)
    assert story.state(job_id) is State.SENDING
    assert story.record(current, OutcomeClass.ACCEPTED)
    assert not story.record(current, OutcomeClass.ACCEPTED), "once is enough"
    assert story.get(job_id).attempt_count == 2


def test_a_late_holder_may_record_as_long_as_nobody_swept(story: Story):
    """The claim is still its own."""
    job_id = story.enqueue()
    (claim,) = story.claim()
    story.wait(3600)
    assert story.record(claim, OutcomeClass.ACCEPTED)
    assert story.state(job_id) is State.SENT
    assert story.sweep().claims == []


def test_one_call_records_many_jobs_and_says_which_held(story: Story):
    """A batch with a lost claim in it records the others."""
    ids = [story.enqueue() for _ in range(3)]
    claims = story.claim()
    claims[1] = replace(claims[1], token="lost")
    accepted = Outcome(outcome_class=OutcomeClass.ACCEPTED, http_status=200)
    assert story.ledger.record([story.result(claim, accepted) for claim in claims]) == [
        True,
        False,
        True,
    ]
    assert [story.state(job_id) for job_id in ids] == [State.SENT, State.SENDING, State.SENT]
    assert story.ledger.record([]) == []


def test_a_claim_whose_reply_was_lost_is_released(story: Story, monkeypatch: pytest.MonkeyPatch):
    """The next claim gets the same jobs, in their order, with no attempt spent."""
    ids = [story.enqueue() for _ in range(3)]
    run = story.ledger._scripts.and_ring

    def claims_and_loses_the_reply(name: str, *args: Any) -> Any:
        run(name, *args)
        raise redis.ConnectionError("reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(story.ledger._scripts, "and_ring", claims_and_loses_the_reply)
        with pytest.raises(QueueUnavailable):
            story.claim()
    assert story.state(ids[0]) is State.SENDING
    claims = story.claim()
    assert [claim.job_id for claim in claims] == ids
    assert all(claim.attempts_spent == 0 for claim in claims)
    assert story.counts() == {"sending": 3}


def test_failed_jobs_are_kept_for_their_retention_and_no_longer(make_story: Callable[..., Story]):
    """Findable to the last moment (design promise 12); then every trace is gone."""
    story = make_story(failed_ttl_seconds=1000)
    job_id = story.fail(idempotency_key="k")
    story.wait(999)
    younger = story.fail()
    story.sweep()
    assert story.ledger.reader.count_by_error_code().by_name == {"551": 2}
    assert story.enqueue(idempotency_key="k") == job_id
    story.wait(1)
    story.sweep()
    assert story.ledger.reader.get(job_id) is None
    assert story.ledger.reader.count_by_error_code().by_name == {"551": 1}
    assert story.counts() == {"failed": 1}
    assert story.enqueue(idempotency_key="k") != job_id
    story.wait(999)
    story.sweep()
    assert story.ledger.reader.get(younger) is None
    left = set(story.client.scan_iter("*"))
    assert not [name for name in left if "failed" in name], left


def test_fifty_attempts_are_kept(make_story: Callable[..., Story]):
    """The latest ones, whether a worker recorded them or died over them; all are counted."""
    story = make_story(max_attempts=100, retry_base_seconds=0.01, retry_max_seconds=0.01)
    job_id = story.enqueue()
    for attempt in range(1, 64):
        (claim,) = story.claim()
        if attempt % 3 == 0:
            story.wait(60)
            story.sweep()
        else:
            story.record(claim, OutcomeClass.AMBIGUOUS, error_code=f"timeout_{attempt}")
            story.client.delete(story.key("pauses"))
        story.wait(1)
        story.sweep()
    record = story.get(job_id)
    assert record.attempt_count == 63
    assert [attempt.error_code for attempt in record.attempts] == [
        "unknown_outcome" if attempt % 3 == 0 else f"timeout_{attempt}" for attempt in range(14, 64)
    ]
