"""What the three web apps have in common: one contract, whatever the framework."""

from __future__ import annotations

import ast
import json
import time
from pathlib import Path

import pytest
from harasocial_dispatch.producer import State

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

MESSAGE = {
    "recipient": {"id": "2560816460648749"},
    "message": {"payload_id": "__hrf_f_63072efd8d1cc15d16c3848e"},
    "page_id": "500725830264749",
    "metadata": "order 1001",
}
BODY = json.dumps(MESSAGE).encode()

#: The producer's promise for when Redis is away, and a margin for a busy machine.
MOST_SECONDS = 2 + 1


def count_jobs(producer):
    return sum(producer.count_states().values())


def test_a_message_is_taken_and_its_status_can_be_seen(web_app, producer):
    """202 with the job's id; the job is in the ledger; `Location` leads to where it stands."""
    answer = web_app.post(BODY, idempotency_key="order-1001-paid")

    assert answer.status == 202
    assert list(answer.json) == ["job_id"]
    job = producer.get_job(answer.json["job_id"])
    assert (job.state, job.idempotency_key) == (State.QUEUED, "order-1001-paid")
    assert MESSAGE.items() <= job.job.items()

    status = web_app.get(answer.headers["Location"])
    assert status.status == 200
    assert status.json == {"state": "queued", "error_code": None, "error_message": None}


def test_the_status_follows_the_job(web_app, producer):
    """What happens to the job shows at the same place."""
    location = web_app.post(BODY).headers["Location"]
    producer.cancel(location.rpartition("/")[2])

    assert web_app.get(location).json["state"] == "cancelled"


def test_an_idempotency_key_makes_one_job_of_two_requests(web_app, producer):
    """A repeated request gets the same id; another key, or none, makes another job."""
    first, again, other, none = (
        web_app.post(BODY, idempotency_key=key).json["job_id"] for key in ("a", "a", "b", None)
    )

    assert first == again
    assert len({first, other, none}) == count_jobs(producer) == 3


def test_an_idempotency_key_of_another_message_is_a_conflict(web_app, producer):
    """409 that names the fields and none of their values; nothing is enqueued."""
    first = web_app.post(BODY, idempotency_key="a").json["job_id"]
    other = {**MESSAGE, "recipient": {"id": "77"}, "metadata": "order 1002"}
    answer = web_app.post(json.dumps(other).encode(), idempotency_key="a")

    assert answer.status == 409
    assert answer.json["fields"] == ["recipient.id", "metadata"]
    text = answer.json["detail" if web_app.framework == "fastapi" else "error"]
    assert text.startswith("This Idempotency-Key belongs to another message.")
    assert [job.job_id for job in producer.find_jobs()] == [first]


@pytest.mark.parametrize("job_id", ["0123456789abcdef0123456789abcdef", "no%20id", "%C3%A9"])
def test_an_unknown_message_is_not_found(web_app, job_id):
    """404, in JSON, and without a word of how it was looked for."""
    answer = web_app.get(f"/messages/{job_id}")

    assert answer.status == 404
    assert list(answer.json.values()) == ["There is no such message (any more)."]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"{}", b'{"page_id": 1}', b"\xff"],
)
def test_a_wrong_body_is_refused_and_nothing_is_stored(web_app, producer, body):
    """Whatever the body, the answer is a 4xx that says in JSON what is wrong."""
    answer = web_app.post(body)

    assert answer.status in (400, 422)
    assert answer.json
    assert count_jobs(producer) == 0


def test_when_redis_is_away_the_client_is_told_to_come_back(web_app, away, producer):
    """503 with `Retry-After`, soon, for both endpoints; and once Redis is back, all is well."""
    location = web_app.post(BODY).headers["Location"]
    with away():
        for ask in (lambda: web_app.post(BODY), lambda: web_app.get(location)):
            began = time.monotonic()
            answer = ask()

            assert time.monotonic() - began < MOST_SECONDS
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert list(answer.json.values()) == ["The queue is not available. Try again soon."]

    assert web_app.post(BODY).status == 202
    assert count_jobs(producer) == 2


def test_when_the_reply_is_lost_the_same_key_makes_one_job(web_app, halted, producer):
    """503 that says so and names the id to look for; the same request later is the same job."""
    assert web_app.post(BODY, idempotency_key="earlier").status == 202
    with halted():
        began = time.monotonic()
        answer = web_app.post(BODY, idempotency_key="order-1001-paid")
        seconds = time.monotonic() - began

    assert seconds < MOST_SECONDS
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    text = answer.json["detail" if web_app.framework == "fastapi" else "error"]
    assert "not known" in text
    assert "same Idempotency-Key" in text

    again = web_app.post(BODY, idempotency_key="order-1001-paid")
    assert again.status == 202
    assert again.json["job_id"] == answer.json["job_id"]
    assert count_jobs(producer) == 2


def test_a_halted_redis_holds_no_first_request(web_app, halted):
    """Also where no connection was open before, the answer comes in time."""
    with halted():
        began = time.monotonic()
        answer = web_app.post(BODY)

    assert time.monotonic() - began < MOST_SECONDS
    assert answer.status == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_only_the_producer_is_imported(example):
    """Of this package, a web app needs nothing but `harasocial_dispatch.producer`."""
    imported = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)

    ours = {name for name in imported if name and name.startswith("harasocial")}
    assert ours == {"harasocial_dispatch.producer"}
