"""One idempotency key creates one job, and one call of `enqueue` creates its jobs once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.schemas import (
    EnqueueUnknown,
    IdempotencyConflict,
    NewJob,
    OutcomeClass,
    QueueUnavailable,
    SendJob,
    State,
    parse_new_job,
)
from support.scenario import Scenario

START = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
LONG, LONGER = "metadata " * 8, "metadata " * 16


def new_job(
    *,
    page_id: str = "1",
    recipient_id: str = "2560816460648749",
    payload_id: str = "__hrf_f_1",
    metadata: str | None = None,
    **options: Any,
) -> NewJob:
    """Return a job, by default with the body of `Scenario.enqueue`."""
    job = SendJob(
        page_id=page_id, recipient_id=recipient_id, payload_id=payload_id, metadata=metadata
    )
    return parse_new_job(job.body(), options)


def test_the_same_key_and_body_give_the_same_job(scenario: Scenario) -> None:
    """The first call's options apply: a repeated `send_at` of "in two hours" is another time."""
    options: dict[str, Any] = {
        "send_at": START + timedelta(hours=2),
        "urgent": True,
        "delivery": "at_most_once",
    }
    job = new_job(metadata=LONG, idempotency_key="k")
    (first,) = scenario.ledger.enqueue([job]).jobs
    (second,) = scenario.ledger.enqueue(
        [new_job(metadata=LONG, idempotency_key="k", **options)]
    ).jobs
    assert (first.is_new, second.is_new) == (True, False)
    assert first.job_id == second.job_id
    assert scenario.state(first.job_id) is State.QUEUED
    assert scenario.counts() == scenario.recount() == {"queued": 1}


@pytest.mark.parametrize(
    ("first", "second", "fields"),
    [
        ({}, {"page_id": "2"}, ["page_id"]),
        ({}, {"recipient_id": "2"}, ["recipient.id"]),
        ({}, {"payload_id": "q"}, ["message.payload_id"]),
        ({"payload_id": "p" * 64}, {"payload_id": "p" * 65}, ["message.payload_id"]),
        ({}, {"metadata": "m"}, ["metadata"]),
        ({"metadata": "m"}, {}, ["metadata"]),
        ({"metadata": LONGER}, {"metadata": LONG}, ["metadata"]),
        ({"metadata": LONG + "1"}, {"metadata": LONG + "2"}, ["metadata"]),
        ({"metadata": "chào"}, {"metadata": "chao"}, ["metadata"]),
        (
            {"metadata": LONG, "payload_id": "q" * 200},
            {"page_id": "2", "recipient_id": "3"},
            ["page_id", "recipient.id", "message.payload_id", "metadata"],
        ),
    ],
)
def test_the_same_key_with_another_body_is_a_conflict(
    scenario: Scenario, first: dict[str, Any], second: dict[str, Any], fields: list[str]
) -> None:
    """The error lists the differences, and nothing is stored, in any order (design promise 3)."""
    for number, (one, other) in enumerate([(first, second), (second, first)], start=1):
        key = f"k-{number}"
        (job_id,) = scenario.ledger.enqueue([new_job(idempotency_key=key, **one)]).job_ids
        before = scenario.get(job_id)
        with pytest.raises(IdempotencyConflict) as caught:
            scenario.ledger.enqueue([new_job(), new_job(idempotency_key=key, **other)])
        assert caught.value.fields == fields
        assert (caught.value.idempotency_key, caught.value.job_id) == (key, job_id)
        assert caught.value.index == 1
        assert scenario.get(job_id) == before
        assert scenario.counts() == scenario.recount() == {"queued": number}


def test_conflicts_can_be_skipped(scenario: Scenario) -> None:
    """Conflicts with stored jobs and within the call are skipped; the other jobs are stored."""
    before = scenario.enqueue(idempotency_key="before")
    jobs = [
        new_job(),
        new_job(idempotency_key="before", recipient_id="1", payload_id="p"),
        new_job(idempotency_key="before"),
        new_job(idempotency_key="a"),
        new_job(idempotency_key="a", metadata="m"),
        new_job(idempotency_key="a"),
    ]
    found = scenario.ledger.enqueue(jobs, skip_conflicts=True).jobs
    assert [job.is_new for job in found] == [True, False, False, True, False, False]
    assert [list(job.conflicting_fields) for job in found] == [
        *([], ["recipient.id", "message.payload_id"], []),
        *([], ["metadata"], []),
    ]
    assert [job.job_id for job in found[1:3]] == [before] * 2
    assert len({job.job_id for job in found[3:]}) == 1
    assert scenario.counts() == scenario.recount() == {"queued": 3}


def test_a_conflict_within_one_call_stores_none_of_it(scenario: Scenario) -> None:
    """It is unknown which of the two jobs was meant."""
    jobs = [new_job(), new_job(idempotency_key="a"), new_job(idempotency_key="a", page_id="2")]
    with pytest.raises(IdempotencyConflict, match="belongs to an earlier row") as caught:
        scenario.ledger.enqueue(jobs)
    assert (caught.value.job_id, caught.value.index) == (None, 2)
    assert scenario.counts() == scenario.recount() == {}
    assert not any("idem:" in name for name in scenario.client.scan_iter("*"))


def row(number: int, **fields: Any) -> dict[str, Any]:
    """Return a row of `enqueue_many` whose message depends on its number."""
    body = new_job(metadata=f"order {number}").job.body()
    return {**body, "idempotency_key": f"order-{number}", **fields}


def test_enqueue_many_counts_what_is_new_and_what_was_there(
    scenario: Scenario, producer: Producer
) -> None:
    """It counts over several batches, and a repeated row as known."""
    first = producer.enqueue_many(row(number) for number in range(3))
    assert (first.new_count, first.already_enqueued_count) == (3, 0)
    second = producer.enqueue_many([*(row(number) for number in range(1200)), row(1199)])
    assert (second.new_count, second.already_enqueued_count) == (1197, 4)
    assert second.accepted[:3] == second.already_enqueued[:3] == first.accepted
    assert second.accepted[-2] == second.accepted[-1] == second.already_enqueued[-1]
    assert scenario.counts() == {"queued": 1200}


def test_enqueue_many_raises_a_conflict_and_reports_what_it_stored(
    scenario: Scenario, producer: Producer
) -> None:
    """Earlier batches are stored; the batch with the conflict is not (design promise 2)."""
    (known,) = producer.enqueue_many([row(700)]).accepted
    rows = [row(number) for number in range(1200)]
    rows[700]["metadata"] = "another"
    with pytest.raises(IdempotencyConflict, match="only 500 jobs before it were") as caught:
        producer.enqueue_many(rows)
    error = caught.value
    assert (error.idempotency_key, error.fields) == ("order-700", ["metadata"])
    assert (error.index, error.job_id) == (700, known)
    stored = [scenario.get(job_id).idempotency_key for job_id in error.accepted]
    assert stored == [f"order-{number}" for number in range(500)]
    assert scenario.counts() == {"queued": 501}


def test_enqueue_many_may_skip_rows_in_conflict(scenario: Scenario, producer: Producer) -> None:
    """They are reported with the invalid rows; all other rows are stored."""
    (known,) = producer.enqueue_many([row(1)]).accepted
    rows = [row(number) for number in range(1200)]
    rows[1] = row(1, page_id="2", metadata="another")
    rows[2] = row(2, urgnt=True)
    rows[601] = row(601, idempotency_key="order-0")
    report = producer.enqueue_many(iter(rows), on_invalid="skip")
    assert (report.new_count, report.already_enqueued_count) == (1197, 0)
    assert [(found.index, found.row, found.errors) for found in report.rejected] == [
        (
            1,
            rows[1],
            {
                "idempotency_key": [
                    f"The key belongs to job {known}, which has another page_id and metadata."
                ]
            },
        ),
        (2, rows[2], {"urgnt": ["Is not a field of the API."]}),
        (
            601,
            rows[601],
            {
                "idempotency_key": [
                    f"The key belongs to job {report.accepted[0]}, which has another metadata."
                ]
            },
        ),
    ]
    assert scenario.counts() == {"queued": 1198}


@pytest.mark.parametrize("is_a_list", ["job", "key", "neither"])
def test_a_key_whose_job_is_gone_is_free(scenario: Scenario, is_a_list: str) -> None:
    """Otherwise the id of a job that is never sent would be returned (promise 1)."""
    job_id = scenario.enqueue(idempotency_key="k")
    hash_key, idem_key = scenario.key(f"job:{job_id}"), scenario.key("idem:k")
    scenario.client.delete(hash_key)
    if is_a_list != "neither":
        name = hash_key if is_a_list == "job" else idem_key
        scenario.client.delete(name)
        scenario.client.rpush(name, "written by another client")
    other = scenario.enqueue(idempotency_key="k")
    assert other != job_id
    assert scenario.enqueue(idempotency_key="k") == other
    assert scenario.state(other) is State.QUEUED


def test_a_job_that_another_client_damaged_is_no_match(scenario: Scenario) -> None:
    """No caller enqueued the message with the damaged body."""
    job_id = scenario.enqueue(idempotency_key="k")
    scenario.client.hdel(scenario.key(f"job:{job_id}"), "recipient_id")
    with pytest.raises(IdempotencyConflict, match=r"another recipient\.id; nothing was enqueued"):
        scenario.enqueue(idempotency_key="k")


@pytest.mark.parametrize("end", ["sent", "cancelled", "failed"])
def test_a_key_and_its_job_are_forgotten_together(
    make_scenario: Callable[..., Scenario], end: str
) -> None:
    """No key is compared with a deleted job, and no key outlives its job."""
    scenario = make_scenario(sent_ttl_seconds=100, failed_ttl_seconds=100)
    job_id = scenario.enqueue(idempotency_key="k")
    if end == "cancelled":
        scenario.ledger.cancel([job_id])
    else:
        ended = OutcomeClass.ACCEPTED if end == "sent" else OutcomeClass.PERMANENT
        scenario.record(scenario.claim()[0], ended)
    names = (scenario.key(f"job:{job_id}"), scenario.key("idem:k"))
    for seconds, kept in ((99.9, True), (0.2, False)):
        scenario.wait(seconds)
        scenario.sweep()
        assert [scenario.client.exists(name) == 1 for name in names] == [kept, kept]


def test_the_same_key_within_one_call_gives_the_same_job(scenario: Scenario) -> None:
    """A file may contain a row twice."""
    jobs = [new_job(idempotency_key="a"), new_job(), new_job(idempotency_key="a"), new_job()]
    a, plain, again, other = scenario.ledger.enqueue(jobs).job_ids
    assert a == again
    assert len({a, plain, other}) == 3
    assert scenario.counts() == {"queued": 3}


def test_different_keys_are_different_jobs(scenario: Scenario) -> None:
    """Keys that a pattern or a separator could confuse are different too."""
    keys = ["a", "A", "a ", "*", "a:b", "a}", "ạ", "a" * 200, "job:1", "0"]
    ids = [scenario.enqueue(idempotency_key=key) for key in keys]
    assert len(set(ids)) == len(keys)
    assert [scenario.enqueue(idempotency_key=key) for key in keys] == ids


def test_jobs_without_a_key_are_all_different(scenario: Scenario) -> None:
    """The caller may want to send the same message twice."""
    assert scenario.enqueue() != scenario.enqueue()


@pytest.mark.parametrize(
    "outcome_class", [None, OutcomeClass.ACCEPTED, OutcomeClass.PERMANENT, OutcomeClass.TRANSIENT]
)
def test_a_key_holds_while_its_job_is_kept(
    scenario: Scenario, outcome_class: OutcomeClass | None
) -> None:
    """The result of the job does not matter."""
    job_id = scenario.enqueue(idempotency_key="k")
    (claim,) = scenario.claim()
    if outcome_class is not None:
        scenario.record(claim, outcome_class)
    state = scenario.state(job_id)
    assert scenario.enqueue(idempotency_key="k") == job_id
    assert scenario.state(job_id) is state


def test_a_known_key_does_not_ring(scenario: Scenario) -> None:
    """No new job is ready."""
    scenario.enqueue(idempotency_key="k")
    scenario.claim(answers_bell=True)
    assert not scenario.rings(lambda: scenario.ledger.enqueue([new_job(idempotency_key="k")]))


class Faulty:
    """Runs the ledger's scripts; the first calls or their replies are lost."""

    def __init__(self, run: Any, *, arrives: list[bool], error: Exception) -> None:
        self.run, self.arrives, self.error = run, arrives, error

    def __call__(self, *call: Any) -> Any:
        if not self.arrives:
            return self.run(*call)
        if self.arrives.pop(0):
            self.run(*call)
        raise self.error


BROKEN = redis.ConnectionError("reset by peer")


@pytest.mark.parametrize("arrived", [True, False])
def test_a_connection_that_breaks_once_makes_one_job(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    """The second call has the same ids, so it does not matter whether the first arrived."""
    faulty = Faulty(scenario.ledger._scripts.run, arrives=[arrived], error=BROKEN)
    monkeypatch.setattr(scenario.ledger._scripts, "run", faulty)
    jobs = [new_job(), new_job(idempotency_key="k"), new_job(idempotency_key="k")]
    enqueued = scenario.ledger.enqueue(jobs)
    assert [job.is_new for job in enqueued.jobs] == [True, True, False]
    assert scenario.counts() == scenario.recount() == {"queued": 2}
    assert sorted(scenario.claim_ids()) == sorted(set(enqueued.job_ids))


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(
    ("error", "tries"),
    [(redis.TimeoutError("no answer"), 1), (BROKEN, 2)],
    ids=["timeout", "broken"],
)
def test_a_reply_that_stays_lost_raises_enqueue_unknown(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int, arrived: bool
) -> None:
    """The error has the ids; another call with the same key makes one job (design promise 2)."""
    faulty = Faulty(scenario.ledger._scripts.run, arrives=[arrived] * tries, error=error)
    monkeypatch.setattr(scenario.ledger._scripts, "run", faulty)
    with pytest.raises(EnqueueUnknown, match="same idempotency key") as caught:
        scenario.ledger.enqueue([new_job(idempotency_key="k")])
    (job_id,) = caught.value.job_ids
    assert (scenario.ledger.reader.get(job_id) is not None) == arrived
    again = scenario.enqueue(idempotency_key="k")
    assert (again == job_id) == arrived
    assert scenario.counts() == {"queued": 1}


def test_without_a_key_the_error_advises_to_look_up_the_ids_first(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, a second call could create a second job."""
    faulty = Faulty(
        scenario.ledger._scripts.run, arrives=[True], error=redis.TimeoutError("no answer")
    )
    monkeypatch.setattr(scenario.ledger._scripts, "run", faulty)
    with pytest.raises(EnqueueUnknown, match="look up the job_ids before you enqueue") as caught:
        scenario.ledger.enqueue([new_job(idempotency_key="k"), new_job()])
    assert "same idempotency key" not in str(caught.value)
    assert all(scenario.state(job_id) is State.QUEUED for job_id in caught.value.job_ids)


def test_a_refusal_by_redis_stores_nothing(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example, Redis is out of memory. Then the result is certain."""
    faulty = Faulty(
        scenario.ledger._scripts.run,
        arrives=[False],
        error=redis.exceptions.OutOfMemoryError("OOM"),
    )
    monkeypatch.setattr(scenario.ledger._scripts, "run", faulty)
    with pytest.raises(QueueUnavailable, match=r"no memory left.*nothing was enqueued") as caught:
        scenario.ledger.enqueue([new_job()])
    assert not isinstance(caught.value, EnqueueUnknown)
    assert scenario.counts() == scenario.recount() == {}


def test_namespaces_share_nothing(make_scenario: Callable[..., Scenario]) -> None:
    """Namespaces on one Redis share neither jobs nor keys."""
    one = make_scenario()
    other = type(one)(one.client, one.clock, replace(one.settings, namespace="other"))
    job_id = one.enqueue(idempotency_key="k")
    assert other.enqueue(idempotency_key="k") != job_id
    assert other.ledger.reader.get(job_id) is None
    assert other.ledger.cancel([job_id]) == [None]
    assert one.state(job_id) is State.QUEUED
    assert all(name.startswith(("{test}:", "{other}:")) for name in one.client.scan_iter("*"))
