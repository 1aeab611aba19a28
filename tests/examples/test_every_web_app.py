"""The common contract of the three web apps."""

from __future__ import annotations

import ast
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.testing import TestKit
from support.web_apps import Answer, Outage, WebApp

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))

MESSAGE = {
    "recipient": {"id": "2560816460648749"},
    "message": {"payload_id": "__hrf_f_63072efd8d1cc15d16c3848e"},
    "page_id": "500725830264749",
    "metadata": "order 1001",
}
BODY = json.dumps(MESSAGE).encode()

#: The producer's timeout without Redis, and a margin for a busy machine.
MOST_SECONDS = 2 + 1


def count_jobs(producer: Producer) -> int:
    return sum(producer.count_states().values())


def test_a_message_is_accepted_and_its_status_can_be_read(
    web_app: WebApp, harasocial: TestKit
) -> None:
    """The status is 202 with the job's id, and `Location` is the URL of its state."""
    answer = web_app.post(BODY, idempotency_key="order-1001-paid")

    assert answer.status == 202
    (job,) = harasocial.assert_enqueued(idempotency_key="order-1001-paid")
    assert answer.json == {"job_id": job.job_id}
    assert MESSAGE.items() <= job.job.items()

    status = web_app.get(answer.headers["Location"])
    assert status.status == 200
    assert status.json == {"state": "queued", "error_code": None, "error_message": None}


def test_the_status_shows_how_a_message_ended(web_app: WebApp, harasocial: TestKit) -> None:
    """The status is sent, or failed with the reason."""
    harasocial.reply_next("code:551", recipient_id="77")
    refused = {**MESSAGE, "recipient": {"id": "77"}}
    locations = [
        web_app.post(json.dumps(body).encode()).headers["Location"] for body in (MESSAGE, refused)
    ]
    outcomes = [(job.state, job.error_code) for job in harasocial.drain()]

    assert outcomes == [("sent", None), ("failed", "551")]
    shown = [web_app.get(location).json for location in locations]
    assert [(status["state"], status["error_code"]) for status in shown] == outcomes


def test_two_requests_with_the_same_key_create_one_job(
    web_app: WebApp, harasocial: TestKit
) -> None:
    """A repeated request returns the same id. Another key, or none, creates another job."""
    first, again, other, none = (
        web_app.post(BODY, idempotency_key=key).json["job_id"] for key in ("a", "a", "b", None)
    )

    assert first == again
    assert [job.job_id for job in harasocial.enqueued()] == [first, other, none]


def test_an_idempotency_key_of_another_message_is_a_conflict(
    web_app: WebApp, harasocial: TestKit
) -> None:
    """The status is 409 with the fields but not their values. Nothing is enqueued."""
    web_app.post(BODY, idempotency_key="a")
    other = {**MESSAGE, "recipient": {"id": "77"}, "metadata": "order 1002"}
    answer = web_app.post(json.dumps(other).encode(), idempotency_key="a")

    assert answer.status == 409
    assert answer.json["fields"] == ["recipient.id", "metadata"]
    text = answer.json["detail" if web_app.framework == "fastapi" else "error"]
    assert text.startswith("This Idempotency-Key belongs to another message.")
    harasocial.assert_enqueued(count=1)


@pytest.mark.parametrize("job_id", ["0123456789abcdef0123456789abcdef", "no%20id", "%C3%A9"])
def test_an_unknown_message_is_not_found(web_app: WebApp, job_id: str) -> None:
    """The status is 404 in JSON, without internal details."""
    answer = web_app.get(f"/messages/{job_id}")

    assert answer.status == 404
    assert list(answer.json.values()) == ["There is no message with this id."]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b"{}", b'{"page_id": 1}', b"\xff"],
)
def test_an_invalid_body_is_rejected_and_nothing_is_stored(
    web_app: WebApp, harasocial: TestKit, body: bytes
) -> None:
    """For any invalid body, the response is a 4xx with the errors in JSON."""
    answer = web_app.post(body)

    assert answer.status in (400, 422)
    assert answer.json
    harasocial.assert_enqueued(count=0)


def test_without_redis_the_client_gets_retry_after(
    web_app: WebApp, away: Outage, producer: Producer
) -> None:
    """Both endpoints quickly return 503 with `Retry-After`, and recover with Redis."""
    location = web_app.post(BODY).headers["Location"]
    with away():
        asks: list[Callable[[], Answer]] = [
            lambda: web_app.post(BODY),
            lambda: web_app.get(location),
        ]
        for ask in asks:
            began = time.monotonic()
            answer = ask()

            assert time.monotonic() - began < MOST_SECONDS
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert list(answer.json.values()) == ["The queue is not available. Try again soon."]

    assert web_app.post(BODY).status == 202
    assert count_jobs(producer) == 2


def test_after_a_lost_reply_the_same_key_creates_one_job(
    web_app: WebApp, halted: Outage, producer: Producer
) -> None:
    """The status is 503 with the job's id. The same request later returns the same job."""
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


def test_a_halted_redis_does_not_block_the_first_request(web_app: WebApp, halted: Outage) -> None:
    """The response is in time, also without an open connection."""
    with halted():
        began = time.monotonic()
        answer = web_app.post(BODY)

    assert time.monotonic() - began < MOST_SECONDS
    assert answer.status == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_only_the_producer_is_imported(example: Path) -> None:
    """A web app only imports the producer, and the Django app if it uses Django."""
    imported = set()
    for node in ast.walk(ast.parse(example.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}

    ours = {name.split(".")[1] for name in imported if name.startswith("harasocial")}
    assert ours - {"django_app"} == {"producer"}
    assert ("django_app" in ours) == (example.stem == "django_app")
