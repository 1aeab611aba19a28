"""Invalid data that other clients wrote into Redis is recorded as failed or removed.

Each test ends with a valid job of the same page that is sent (design promise 10).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.schemas import InvalidJob, JobRecord, OutcomeClass, State, parse_send_job
from support.scenario import Scenario

START_MS = 1_769_851_800_000
GOOD = {
    "state": "queued",
    "page_id": "1",
    "recipient_id": "2560816460648749",
    "payload_id": "p",
    "attempts": "0",
    "enqueued_at": str(START_MS),
    "expires_at": str(START_MS + 86_400_000),
}


@pytest.fixture
def scenario(make_scenario: Callable[..., Scenario]) -> Iterator[Scenario]:
    """A scenario at whose end page 1 still works, and all reads still succeed."""
    made = make_scenario()
    yield made
    made.wait(3600)
    job_id = made.enqueue("1")
    for _ in range(5):
        made.sweep()
        for claim in made.claim():
            made.record(claim, OutcomeClass.ACCEPTED)
        made.wait(30)
    assert made.state(job_id) is State.SENT
    made.ledger.reader.pauses()
    made.ledger.reader.waiting_by_page()
    for record in made.ledger.reader.find(JobFilter(), 1000):
        json.dumps(record.as_json())
    assert all(count >= 0 for count in made.ledger.reader.count_states().values())


def put(scenario: Scenario, job_id: str, fields: dict[str, str] | None, page_id: str = "1") -> None:
    """Put a job into a lane, like another client."""
    if fields:
        scenario.client.hset(scenario.key(f"job:{job_id}"), mapping=fields)
    scenario.client.rpush(scenario.key(f"ready:{page_id}"), job_id)
    scenario.client.zadd(scenario.key("lanes"), {page_id: 0})


def failed(scenario: Scenario, job_id: str) -> JobRecord:
    record = scenario.get(job_id)
    assert record.state is State.FAILED
    assert record.error_code == "invalid_job"
    assert scenario.ledger.reader.count_by_error_code().by_name == {"invalid_job": 1}
    assert [
        found.job_id for found in scenario.ledger.reader.find(JobFilter(page_ids=("1",)), 10)
    ] == [job_id]
    return record


def test_a_complete_job_of_another_client_is_sent(scenario: Scenario) -> None:
    """Migrations create such jobs."""
    put(scenario, "by-hand", GOOD)
    (claim,) = scenario.claim()
    assert parse_send_job(claim.body).recipient_id == "2560816460648749"
    assert scenario.record(claim, OutcomeClass.ACCEPTED)


def test_an_id_without_a_job_is_recorded(scenario: Scenario) -> None:
    """It becomes a failed job of this page."""
    put(scenario, "ghost", None)
    assert scenario.claim() == []
    record = failed(scenario, "ghost")
    assert record.error_message == "no complete job was stored under this id"
    assert (record.page_id, record.attempt_count) == ("1", 0)
    assert record.finished_at == record.enqueued_at is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda client, key: client.set(key, "text"),
        lambda client, key: client.rpush(key, "a", "b"),
        lambda client, key: client.zadd(key, {"a": 1}),
        lambda client, key: client.sadd(key, "a"),
        lambda client, key: client.hset(key, "page_id", "1"),
        lambda client, key: client.hset(key, "payload_id", "p"),
    ],
    ids=["string", "list", "zset", "set", "hash without a state", "hash without a page"],
)
@pytest.mark.parametrize("where", ["lane", "due"])
def test_a_key_that_is_no_job_is_recorded(
    scenario: Scenario, make: Callable[[Any, str], object], where: str
) -> None:
    """The job's key may have any type."""
    make(scenario.client, scenario.key("job:odd"))
    if where == "lane":
        put(scenario, "odd", None)
        assert scenario.claim() == []
        failed(scenario, "odd")
    else:
        scenario.client.zadd(scenario.key("due"), {"odd": 1})
        assert scenario.sweep().made_ready == 0
        assert scenario.get("odd").error_code == "invalid_job"
        assert scenario.client.zcard(scenario.key("due")) == 0


def test_a_job_in_the_wrong_lane_is_recorded(scenario: Scenario) -> None:
    """It is unknown which page should send it."""
    put(scenario, "lost", {**GOOD, "page_id": "2"})
    assert scenario.claim() == []
    assert scenario.get("lost").error_code == "invalid_job"
    assert "page_id" in (scenario.get("lost").error_message or "")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"recipient_id": ""}, "recipient.id"),
        ({"recipient_id": "someone"}, "recipient.id"),
        ({"recipient_id": "1" * 1_000_000}, "recipient.id"),
        ({"payload_id": "\x1b[2J"}, "message.payload_id"),
        ({"payload_id": ""}, "message.payload_id"),
        ({"metadata": "m" * 64, **{f"metadata+{i}": "m" * 64 for i in range(1, 9)}}, "metadata"),
        ({"metadata": " "}, "metadata"),
    ],
)
def test_a_job_that_does_not_validate_reaches_the_worker_with_its_body(
    scenario: Scenario, changes: dict[str, str], field: str
) -> None:
    """The worker names the invalid field and records the job."""
    put(scenario, "bad", {**GOOD, **changes})
    (claim,) = scenario.claim()
    with pytest.raises(InvalidJob) as caught:
        parse_send_job(claim.body)
    assert set(caught.value.errors) == {field}
    assert scenario.record(
        claim,
        OutcomeClass.PERMANENT,
        error_code="invalid_job",
        error_message=str(caught.value),
        posted=False,
    )
    record = failed(scenario, "bad")
    assert field in (record.error_message or "")


@pytest.mark.parametrize("field", ["recipient_id", "payload_id"])
def test_a_job_that_lacks_a_field_reaches_the_worker_too(scenario: Scenario, field: str) -> None:
    """The missing field is null."""
    put(scenario, "bad", {name: value for name, value in GOOD.items() if name != field})
    (claim,) = scenario.claim()
    with pytest.raises(InvalidJob, match="may not be null"):
        parse_send_job(claim.body)
    assert scenario.record(claim, OutcomeClass.PERMANENT, error_code="invalid_job", posted=False)
    failed(scenario, "bad")


NUMBERS = [
    "",
    "abc",
    "-1",
    "1e400",
    "-1e400",
    "nan",
    "inf",
    "1.5",
    "0x10",
    "9" * 400,
    "9" * 5000,
    "٣",
]


@pytest.mark.parametrize("ending", ["accepted", "transient", "lease"])
@pytest.mark.parametrize(
    "field",
    ["attempts", "attempts_before_replay", "expires_at", "enqueued_at", "send_at", "urgent"],
)
def test_an_invalid_number_stops_nothing(scenario: Scenario, field: str, ending: str) -> None:
    """Claims, records, sweeps and reads continue."""
    ids = [f"odd-{number}" for number in range(len(NUMBERS))]
    for job_id, value in zip(ids, NUMBERS, strict=True):
        put(scenario, job_id, {**GOOD, field: value})
    claims = scenario.claim()
    assert len(claims) == len(ids) or field == "expires_at"
    for claim in claims:
        assert claim.attempts_spent >= 0
        if ending != "lease":
            assert scenario.record(claim, OutcomeClass(ending))
    if ending == "lease":
        scenario.wait(60)
        assert len(scenario.sweep().claims) == len(claims)
    for job_id in ids:
        record = scenario.get(job_id)
        json.dumps(record.as_json())
        assert record.state is not State.QUEUED


@pytest.mark.parametrize(
    "attempts",
    [
        {"attempt:٣": "[1,2,3,null,null]"},
        {"attempt:007": "[1,2,3,null,null]"},
        {"attempt:" + "9" * 5000: "[1,2,3,null,null]"},
        {"attempt:": "x", "attempt:-1": "x", "attempt:1.5": "x", "attempt": "x"},
        {"attempt:1": "not JSON"},
        {"attempt:1": "[]"},
        {"attempt:1": "[" * 100_000},
        {"attempt:1": "[1e400,null,null,null,null]"},
        {"attempt:1": "[NaN,null,null,null,null]"},
        {"attempt:1": '["a","b","c","d","e"]'},
        {"attempt:1": '[1,2,3,{"a":1},["\\ud800\\u001b"]]'},
        {"attempt:1": "[99999999999999999,2,3,null,null]"},
    ],
)
def test_invalid_attempts_are_left_out(scenario: Scenario, attempts: dict[str, str]) -> None:
    """If some parts are valid, they are shown, without control characters."""
    put(scenario, "odd", {**GOOD, **attempts, "attempt:2": '[5000,1,200,null,"fine"]'})
    record = scenario.get("odd")
    assert "fine" in [attempt.error_message for attempt in record.attempts]
    for attempt in record.attempts:
        for text in (attempt.error_code, attempt.error_message):
            assert text is None or text.isprintable()
    json.dumps(record.as_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize("state", ["", "QUEUED", "lost", "\x1b[2J"])
@pytest.mark.parametrize("where", ["lane", "due"])
def test_an_invalid_state_is_shown_as_failed(scenario: Scenario, state: str, where: str) -> None:
    """The job is not sent and does not block others."""
    put(scenario, "odd", {**GOOD, "state": state})
    scenario.client.zadd(scenario.key("due"), {"odd": 1} if where == "due" else {"other": 1})
    scenario.sweep()
    assert scenario.claim() == []
    assert scenario.state("odd") is State.FAILED


PAUSES = [
    "not JSON",
    "",
    "null",
    "5",
    '"text"',
    "[]",
    "{}",
    '{"level": "high"}',
    '{"level": null, "failures": null, "until_ms": null}',
    '{"level": 1}',
    '{"level": 1, "until_ms": "soon"}',
    '{"level": -5, "failures": -5, "until_ms": -5}',
    '{"level": 1e300, "failures": 1e300, "until_ms": 1e300}',
    '{"level": 1, "failures": {}, "until_ms": [], "reason": {}, "token_fingerprint": 5}',
    '{"level": 1, "failures": true, "until_ms": false, "error_code": ["x"]}',
]


@pytest.mark.parametrize("outcome_class", OutcomeClass)
def test_a_pause_that_cannot_be_read_stops_nothing(
    scenario: Scenario, outcome_class: OutcomeClass
) -> None:
    """Claims, records, resumes and reads continue."""
    pages = [str(number) for number in range(1, len(PAUSES) + 1)]
    for page, pause in zip(pages, PAUSES, strict=True):
        scenario.enqueue(page)
        scenario.client.hset(scenario.key("pauses"), page, pause)
    scenario.ledger.reader.pauses()
    scenario.ledger.resume(dict.fromkeys(pages, ""))
    claims = scenario.claim()
    assert {claim.page_id for claim in claims} == set(pages)
    for claim in claims:
        assert scenario.record(claim, outcome_class)
    scenario.ledger.reader.pauses()


@pytest.mark.parametrize(
    "pause",
    [
        "[" * 100_000,
        '{"level": 1, "reason": "auth", "until_ms": 1e400}',
        '{"level": 1e400, "reason": "auth", "until_ms": Infinity}',
    ],
)
def test_a_pause_that_cannot_be_read_is_not_shown(scenario: Scenario, pause: str) -> None:
    """Other pauses are still shown."""
    scenario.client.hset(scenario.key("pauses"), "1", pause)
    scenario.fail_token("2")
    shown = scenario.ledger.reader.pauses()
    scenario.client.hdel(scenario.key("pauses"), "1")
    assert [found.page_id for found in shown] == ["2"]


@pytest.mark.parametrize("field", ["page_id", "claim", "state"])
def test_a_job_that_loses_a_field_while_it_is_sent_is_not_recorded(
    scenario: Scenario, field: str
) -> None:
    """The other results of the batch are recorded."""
    scenario.enqueue()
    scenario.enqueue()
    broken, whole = scenario.claim()
    scenario.client.hdel(scenario.key(f"job:{broken.job_id}"), field)
    assert not scenario.record(broken, OutcomeClass.TRANSIENT)
    assert scenario.record(whole, OutcomeClass.ACCEPTED)
    scenario.wait(60)
    scenario.sweep()
    assert scenario.get(broken.job_id).error_code in ("invalid_job", "unknown_outcome")


def test_a_job_that_loses_its_page_in_a_claim_whose_reply_is_lost_is_recorded(
    scenario: Scenario,
) -> None:
    """It cannot return to a lane; its lease ends, and the ledger continues."""
    job_id = scenario.enqueue()
    scenario.claim_and_lose_the_reply()
    scenario.client.hdel(scenario.key(f"job:{job_id}"), "page_id")

    scenario.claim()
    scenario.wait(3600)
    scenario.sweep()

    assert scenario.get(job_id).error_code == "invalid_job"


def test_a_job_that_vanishes_while_it_is_sent_leaves_a_record(scenario: Scenario) -> None:
    """It is recorded when its lease ends, because the message may have been sent."""
    job_id = scenario.enqueue()
    (claim,) = scenario.claim()
    scenario.client.delete(scenario.key(f"job:{job_id}"))
    assert not scenario.record(claim, OutcomeClass.ACCEPTED)
    scenario.wait(60)
    scenario.sweep()
    assert scenario.get(job_id).error_code == "invalid_job"


def test_an_invalid_due_time_is_due_now(scenario: Scenario) -> None:
    """Neither infinity stops the sweep."""
    job_id = scenario.enqueue(send_at="2026-02-01T00:00:00Z")
    scenario.client.zadd(scenario.key("due"), {job_id: float("-inf"), "ghost": float("-inf")})
    assert scenario.sweep().made_ready == 1
    assert scenario.state(job_id) is State.QUEUED


def test_a_failed_record_without_a_page_cannot_be_replayed(scenario: Scenario) -> None:
    """It never was a job, so a replay would send nothing."""
    scenario.client.zadd(scenario.key("due"), {"ghost": 1})
    scenario.sweep()
    assert scenario.ledger.replay(["ghost"]) == [None]
    assert scenario.state("ghost") is State.FAILED


def test_a_failed_record_of_another_page_replays_into_another_failure(scenario: Scenario) -> None:
    """An id without a job fails again."""
    put(scenario, "ghost", None)
    scenario.claim()
    assert scenario.ledger.replay(["ghost"]) == [State.FAILED]
    (claim,) = scenario.claim()
    assert claim.body["recipient"] == {"id": None}
    assert scenario.record(claim, OutcomeClass.PERMANENT, error_code="invalid_job", posted=False)
    assert scenario.ledger.reader.count_by_error_code().by_name == {"invalid_job": 1}


def test_jobs_put_by_hand_do_not_hide_ours(scenario: Scenario) -> None:
    """Such jobs were never counted; the counts of the others stay correct."""
    for number in range(3):
        put(scenario, f"by-hand-{number}", GOOD)
    for claim in scenario.claim():
        scenario.record(claim, OutcomeClass.ACCEPTED)
    scenario.enqueue()
    assert scenario.counts() == {"queued": 1, "sent": 3}
