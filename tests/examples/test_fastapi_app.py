"""The FastAPI example's own habits."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor


def test_field_errors_are_a_list_of_places_and_messages(fastapi_app):
    """422 with `detail` as FastAPI itself would give it, of all fields at once."""
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


def test_a_wrong_header_is_found_in_the_header(fastapi_app):
    """An idempotency key that is too long is told where it stands."""
    answer = fastapi_app.post(b"[]", idempotency_key="k" * 201)

    assert [error["loc"] for error in answer.json["detail"]] == [
        ["body"],
        ["header", "idempotency-key"],
    ]


def test_waiting_for_redis_does_not_hold_the_event_loop(fastapi_app, halted):
    """While one request waits for a halted Redis, another is answered."""
    body = b'{"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}'
    with halted(), ThreadPoolExecutor() as threads:
        waiting = threads.submit(fastapi_app.post, body)
        answered = 0
        while not waiting.done():
            assert fastapi_app.get("/openapi.json").status == 200
            answered += 1
        refused = waiting.result()

    assert refused.status == 503
    # Had the loop been held, the first answer would have come after the other request's.
    assert answered > 3


def test_the_documentation_shows_a_body_that_is_accepted(fastapi_app):
    """What a person tries out at /docs works."""
    documented = fastapi_app.get("/openapi.json").json["paths"]["/messages"]["post"]
    (example,) = documented["requestBody"]["content"]["application/json"]["schema"]["examples"]

    assert fastapi_app.post(json.dumps(example).encode()).status == 202
    assert [parameter["name"] for parameter in documented["parameters"]] == ["idempotency-key"]
