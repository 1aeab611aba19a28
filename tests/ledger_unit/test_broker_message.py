"""Only doorbells and Celery's broadcasts are passed to Celery, rebuilt from the required parts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from harasocial_dispatch.broker.message import (
    DISPATCH_TASK,
    UnreadableMessage,
    read_broadcast,
    read_doorbell,
)
from hypothesis import given
from hypothesis import strategies as st

DEEP = b"[" * 100_000 + b"]" * 100_000
EVENT = {
    "type": "task-failed",
    "uuid": "1",
    "hostname": "w@h",
    "timestamp": 1.5,
    "utcoffset": -7,
    "clock": 3,
    "pid": 4,
}
COMMAND: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None}


def doorbell(**changes: Any) -> dict[str, Any]:
    """Return Celery's message for a doorbell; a value of None removes that part."""
    made = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": DISPATCH_TASK, "id": "1234", "eta": None},
        "properties": {"body_encoding": "base64", "delivery_tag": "5678"},
        **changes,
    }
    return {name: part for name, part in made.items() if part is not None}


def broadcast(content: Any, **changes: Any) -> dict[str, Any]:
    """Return Celery's message for an event or a command."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return doorbell(
        **{
            "body": base64.b64encode(body).decode(),
            "headers": {"clock": 7, "ticket": "t"},
            **changes,
        }
    )


def test_only_its_id_is_taken_from_a_doorbell() -> None:
    """Additional fields, such as a time, a limit or a callback, have no effect."""
    headers = {
        "task": DISPATCH_TASK,
        "id": "1234",
        "eta": "2999-01-01T00:00:00",
        "timelimit": [0.001, 0.001],
        "compression": "zlib",
    }
    bad_body = {"body": "%", "properties": None}
    taken = read_doorbell(json.dumps(doorbell(headers=headers, **bad_body)).encode(), "q")

    assert taken["headers"] == {
        "lang": "py",
        "task": DISPATCH_TASK,
        "id": "1234",
        "root_id": "1234",
    }
    args, kwargs, embedded = json.loads(base64.b64decode(taken["body"]))
    assert (args, kwargs, set(embedded.values())) == ([], {}, {None})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"7", "not a JSON object"),
        (b"1" * 10_000, "not JSON"),
        (DEEP, "nested too deeply"),
        (b'{"headers": ' + b"[" * 50 + b"]" * 50 + b"}", "nested too deeply"),
        (b" " * (9 * 1024 * 1024), "too long"),
        (b"{}", "its headers"),
        (b'{"headers": []}', "its headers"),
        (b'{"headers": {"task": []}}', "for another task"),
        (b'{"headers": {"task": "celery.map", "id": "1"}}', "for another task"),
        (doorbell(headers={"task": DISPATCH_TASK}), "its id"),
        (doorbell(headers={"task": DISPATCH_TASK, "id": True}), "its id"),
        (doorbell(headers={"task": DISPATCH_TASK, "id": "a\nb"}), "its id"),
        (doorbell(headers={"task": DISPATCH_TASK, "id": "x" * 65}), "its id"),
        (doorbell(**{"content-type": "application/x-python-serialize"}), "not JSON"),
        (doorbell(headers={"__type__": "uuid", "__value__": {}}), "a Python type"),
    ],
)
def test_what_is_no_doorbell_is_refused_without_a_word_of_it(data: Any, reason: str) -> None:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    with pytest.raises(UnreadableMessage, match=reason):
        read_doorbell(data, "q")


@pytest.mark.parametrize("content", [EVENT, [EVENT, EVENT], COMMAND, {"w@h": {"ok": "pong"}}])
def test_events_commands_and_replies_are_taken(content: Any) -> None:
    taken = read_broadcast(json.dumps(broadcast(content)).encode(), "q")
    assert json.loads(base64.b64decode(taken["body"])) == content
    assert taken["headers"] == {"clock": 7, "ticket": "t"}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (broadcast(EVENT, properties=None), "its properties"),
        (broadcast(EVENT, headers=None), "its headers"),
        (broadcast(EVENT, headers={"clock": "7"}), "its clock"),
        (broadcast(EVENT, body=7), "its body"),
        (broadcast(EVENT, body="%%%"), "not base64"),
        (broadcast(EVENT, body="é"), "not base64"),
        (broadcast(EVENT, body="\ud800", properties={}), "UTF-8"),
        (broadcast(EVENT, **{"content-type": "x"}), "not JSON"),
        (broadcast(b"nothing"), "not JSON"),
        (broadcast(DEEP), "nested too deeply"),
        (broadcast(7), "its body is not an object"),
        (broadcast([EVENT, 7]), "its body is not an object"),
        (broadcast({"type": 5}), "its type"),
        (broadcast({**EVENT, "timestamp": "now"}), "its timestamp"),
        (broadcast({**EVENT, "timestamp": float("inf")}), "its timestamp"),
        (broadcast({**EVENT, "clock": "7"}), "its clock"),
        (broadcast({**EVENT, "uuid": {}}), "its uuid"),
        (broadcast({**COMMAND, "method": 5}), "its method"),
        (broadcast({**COMMAND, "destination": "all"}), "its destination"),
        (broadcast({**COMMAND, "reply_to": "me"}), "its reply_to"),
        (broadcast({**COMMAND, "reply_to": {"exchange": 5}}), "its exchange"),
    ],
)
def test_a_broadcast_that_celery_does_not_expect_is_refused(
    message: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableMessage, match=reason):
        read_broadcast(json.dumps(message).encode(), "q")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(list(EVENT)), inner)
    ),
)


@given(
    st.binary()
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.builds(broadcast, json_values).map(lambda value: json.dumps(value).encode())
    | st.builds(doorbell, headers=json_values, properties=json_values).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """No other exception is raised."""
    for read in (read_doorbell, read_broadcast):
        try:
            taken = read(data, "q")
        except UnreadableMessage:
            continue
        assert taken["properties"]["delivery_info"]["routing_key"] == "q"
