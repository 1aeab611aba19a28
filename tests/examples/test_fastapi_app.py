"""Behavior that is specific to the FastAPI example."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from support.web_apps import Outage, WebApp


def test_field_errors_are_a_list_of_locations_and_messages(fastapi_app: WebApp) -> None:
    """The status is 422, with all errors in FastAPI's format of `detail`."""
    answer = fastapi_app.post(b'{"recipient": {"id": 5}, "colour": "red"}')

    assert answer.status == 422
    assert list(answer.json) == ["detail"]
    found = {tuple(error["loc"]): error for error in answer.json["detail"]}
    assert found.keys() == {
        ("body", "recipient", "id"),
        ("body", "message"),
        ("body", "page_id"),
        ("body", "colour"),
    }
    assert found["body", "recipient", "id"] == {
        "type": "value_error",
        "loc": ["body", "recipient", "id"],
        "msg": "Is a number. Quote it: ids are strings of digits.",
    }


def test_an_invalid_header_is_reported_with_its_location(fastapi_app: WebApp) -> None:
    """The error of a long idempotency key has the location of the header."""
    answer = fastapi_app.post(b"[]", idempotency_key="k" * 201)

    assert [error["loc"] for error in answer.json["detail"]] == [
        ["body"],
        ["header", "idempotency-key"],
    ]


def test_waiting_for_redis_does_not_block_the_event_loop(
    fastapi_app: WebApp, halted: Outage
) -> None:
    """While one request waits for a halted Redis, another one is handled."""
    body = b'{"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}'
    assert fastapi_app.get("/openapi.json").status == 200  # made at the first request
    with halted(), ThreadPoolExecutor() as threads:
        waiting = threads.submit(fastapi_app.post, body)
        answered = 0
        while not waiting.done():
            assert fastapi_app.get("/openapi.json").status == 200
            answered += 1
        refused = waiting.result()

    assert refused.status == 503
    # If the loop were blocked, the responses would have the opposite order.
    assert answered > 3


def test_the_documentation_shows_a_body_that_is_accepted(fastapi_app: WebApp) -> None:
    """The example request at /docs works."""
    documented = fastapi_app.get("/openapi.json").json["paths"]["/messages"]["post"]
    (example,) = documented["requestBody"]["content"]["application/json"]["schema"]["examples"]

    assert fastapi_app.post(json.dumps(example).encode()).status == 202
    assert [parameter["name"] for parameter in documented["parameters"]] == ["idempotency-key"]
