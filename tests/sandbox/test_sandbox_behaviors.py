"""The reply of the sandbox to each payload_id, as a client receives it."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from itertools import islice
from typing import Any

import pytest
from harasocial_dispatch import sandbox as sandbox_package
from harasocial_dispatch.sandbox import BEHAVIORS
from harasocial_dispatch.sandbox.behaviors import (
    BOMB_BYTES,
    HOSTILE_CHARACTERS,
    HOSTILE_TEXT,
    HUGE_BYTES,
    UnknownBehaviorError,
    form,
    parse_behavior,
    reply_to,
)
from hypothesis import given
from hypothesis import strategies as st
from support.exact_client import Client
from support.harness import eventually

ACCEPTED = b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'


def error(code: object, message: str) -> dict[str, object]:
    return {"data": None, "has_error": True, "error_code": code, "error_message": message}


# payload_id, status, body, counted as accepted
WHOLE_REPLIES: list[tuple[str, int, Any, bool]] = [
    ("__hrf_f_63072efd8d1cc15d16c3848e", 200, ACCEPTED, True),
    ("sandbox", 200, ACCEPTED, True),
    ("sandbox:ok", 200, ACCEPTED, True),
    ("sandbox:ok#17", 200, ACCEPTED, True),
    ("sandbox:code:10/2018278", 200, error("10/2018278", "sandbox error 10/2018278"), False),
    ("sandbox:code:190:401", 401, error("190", "sandbox error 190"), False),
    ("sandbox:code:a%3Ab#1", 200, error("a:b", "sandbox error a:b"), False),
    ("sandbox:code_in_message:10/1", 200, error(None, "(#10/1) sandbox error"), False),
    ("sandbox:code_in_message:4:400", 400, error(None, "(#4) sandbox error"), False),
    ("sandbox:numeric_code:190", 200, error(190, "sandbox error 190"), False),
    ("sandbox:numeric_code:-1:400", 400, error(-1, "sandbox error -1"), False),
    (
        "sandbox:echo_token",
        200,
        error("refused sandbox-token", "the request's header was Bearer sandbox-token"),
        False,
    ),
    ("sandbox:status:500", 500, b"500 Internal Server Error\n", False),
    ("sandbox:status:204", 204, b"", False),
    ("sandbox:status:299", 299, b"299 Status\n", False),
    ("sandbox:throttle", 429, b"429 Too Many Requests\n", False),
    ("sandbox:throttle:2.0", 429, b"429 Too Many Requests\n", False),
    ("sandbox:throttle_first:1", 429, b"429 Too Many Requests\n", False),
    ("sandbox:throttle_first:0", 200, ACCEPTED, True),
    ("sandbox:flaky:1", 503, b"503 Service Unavailable\n", False),
    ("sandbox:flaky:1:502", 502, b"502 Bad Gateway\n", False),
    ("sandbox:flaky_drop:0", 200, ACCEPTED, True),
    ("sandbox:slow:0.05", 200, ACCEPTED, True),
    ("sandbox:slow_headers:0.0005", 200, ACCEPTED, True),
    ("sandbox:drip:0.001", 200, ACCEPTED, True),
    ("sandbox:garbage", 200, b"<html><body>this is not JSON</body></html>", False),
    ("sandbox:not_object", 200, [json.loads(ACCEPTED)], False),
    ("sandbox:missing_fields", 200, {}, False),
    (
        "sandbox:no_success",
        200,
        {"data": None, "has_error": False, "error_code": None, "error_message": None},
        False,
    ),
    (
        "sandbox:unsuccessful",
        200,
        {"data": {"success": False}, "has_error": False, "error_code": None, "error_message": None},
        False,
    ),
    (
        "sandbox:wrong_types",
        200,
        {"data": {"success": "true"}, "has_error": "false", "error_code": 0, "error_message": []},
        False,
    ),
    ("sandbox:nan", 200, ACCEPTED.replace(b'"error_code":null', b'"error_code":NaN'), False),
    (
        "sandbox:deep",
        200,
        ACCEPTED.replace(b'{"success":true}', b"[" * 100_000 + b"]" * 100_000),
        False,
    ),
    (
        "sandbox:duplicate_keys",
        200,
        ACCEPTED.replace(b'"has_error"', b'"has_error":true,"has_error"'),
        False,
    ),
    (
        "sandbox:not_utf8",
        200,
        ACCEPTED.replace(b'"error_message":null', b'"error_message":"\xff\xfe\xe9"'),
        False,
    ),
    ("sandbox:http10", 200, ACCEPTED, True),
    ("sandbox:duplicate_headers", 200, ACCEPTED, True),
    ("sandbox:call_limit:32/80", 200, ACCEPTED, True),
    ("sandbox:redirect", 302, b"302 Found\n", False),
    ("sandbox:redirect:307", 307, b"307 Temporary Redirect\n", False),
]

# payload_id, received body, end of the connection
BROKEN_REPLIES = [
    ("sandbox:drop", b"", "closed"),
    ("sandbox:flaky_drop:1", b"", "closed"),
    ("sandbox:drop_before", b"", "reset"),
    ("sandbox:reset", b"", "reset"),
    ("sandbox:drop_mid", ACCEPTED[: len(ACCEPTED) // 2], "closed"),
    ("sandbox:wrong_length", ACCEPTED, "closed"),
]

# These have separate tests.
OTHERS = {"echo_malformed", "hang", "huge", "endless", "gzip", "gzip_bomb", "hostile"}


@pytest.mark.parametrize(
    ("payload_id", "status", "body", "accepted"),
    WHOLE_REPLIES,
    ids=[row[0] for row in WHOLE_REPLIES],
)
def test_the_payload_id_selects_a_complete_reply(
    client: Client,
    payload_id: str,
    status: int,
    body: bytes | list[dict[str, Any]] | dict[str, Any],
    accepted: bool,
) -> None:
    """The reply has the behavior's status and body. Only accepted replies count as accepted."""
    received = client.post(payload_id)

    assert received.status == status
    assert received.ending == "closed"
    assert (received.body if isinstance(body, bytes) else received.json) == body
    totals = client.sandbox.totals()
    assert (totals.posts, totals.accepted) == (1, int(accepted))


@pytest.mark.parametrize(
    ("payload_id", "body", "ending"), BROKEN_REPLIES, ids=[row[0] for row in BROKEN_REPLIES]
)
def test_the_payload_id_selects_a_broken_reply(
    client: Client, payload_id: str, body: bytes, ending: str
) -> None:
    """The connection ends as the behavior requires, and nothing counts as accepted."""
    received = client.exchange(client.request(client.body(payload_id)))

    assert (received.body, received.ending) == (body, ending)
    assert client.sandbox.totals().accepted == 0


def test_every_behavior_is_tested_and_documented() -> None:
    """Every behavior of the parser has tests and documentation."""
    ids = [row[0] for row in WHOLE_REPLIES] + [row[0] for row in BROKEN_REPLIES]
    tested = {parse_behavior(payload_id).name for payload_id in ids}

    assert tested | OTHERS == set(BEHAVIORS)
    documented = [line.split() for line in (sandbox_package.__doc__ or "").splitlines()]
    forms = {words[0] for words in documented if words}
    assert {form(name).removeprefix("sandbox:") for name in BEHAVIORS} <= forms


def test_the_accepted_reply_is_exactly_the_documented_one(client: Client) -> None:
    """The body is the documented one, with simple and correct headers."""
    assert client.post("sandbox:ok").data == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 82\r\n\r\n" + ACCEPTED
    )


@pytest.mark.parametrize(
    ("argument", "header"),
    [
        ("2.0", "2.0"),
        ("1", "1"),
        ("Wed, 21 Oct 2026 07%3A28%3A00 GMT", "Wed, 21 Oct 2026 07:28:00 GMT"),
        ("soon", "soon"),
        ("-1", "-1"),
    ],
)
def test_retry_after_is_the_given_text(client: Client, argument: str, header: str) -> None:
    """Retry-After may be any text. Colons are percent-encoded in the payload_id."""
    for payload_id in (f"sandbox:throttle:{argument}#1", f"sandbox:throttle_first:1:{argument}"):
        assert f"\r\nRetry-After: {header}" in client.post(payload_id).head
    assert "Retry-After" not in client.post("sandbox:throttle").head


def test_the_call_limit_is_the_given_text(client: Client) -> None:
    """It is in the header that Haravan's APIs use."""
    head = client.post("sandbox:call_limit:32/80").head
    assert "X-Haravan-Api-Call-Limit: 32/80" in head.split("\r\n")


def test_the_first_posts_of_each_job_fail(client: Client) -> None:
    """The POSTs of each job are counted separately."""
    for payload_id, bad in [("sandbox:throttle_first:2", 429), ("sandbox:flaky:2:500", 500)]:
        for recipient in ("1", "2"):
            statuses = [
                client.post(payload_id, recipient={"id": recipient}).status for _ in range(4)
            ]
            assert statuses == [bad, bad, 200, 200]

    dropped = [client.post("sandbox:flaky_drop:1").data for _ in range(2)]
    assert dropped[0] == b""
    assert dropped[1].startswith(b"HTTP/1.1 200 OK")


def test_interim_status_is_followed_by_the_accepted_reply(client: Client) -> None:
    """A 103 is sent first, and then the final reply."""
    received = client.post("sandbox:status:103")

    assert received.data.startswith(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.data.endswith(ACCEPTED)
    assert client.sandbox.totals().accepted == 1


def test_status_204_has_no_body_and_no_length(client: Client) -> None:
    """After a 204, the connection is ready for the next request: no bytes remain."""
    request = client.request(client.body("sandbox:status:204"))
    last = client.request(client.body("sandbox:ok"), connection="close")
    received = client.exchange(request + last)

    assert received.data.startswith(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("payload_id", ["slow:0.2", "slow_headers:0.002", "drip:0.002"])
def test_slow_replies_have_the_given_delay(client: Client, payload_id: str) -> None:
    """The delay is before the reply, or after each byte of its head or body."""
    started = time.monotonic()

    assert client.post(f"sandbox:{payload_id}").body == ACCEPTED
    assert time.monotonic() - started >= 0.16


def test_hang_sends_nothing_until_the_client_disconnects(client: Client) -> None:
    """The connection stays open without data. The request ends when the client disconnects."""
    received = client.exchange(client.request(client.body("sandbox:hang")), silence_seconds=0.1)
    assert (received.data, received.ending) == (b"", "open")

    def free() -> bool:
        client.sandbox.reset()  # requests in progress are counted again
        return client.sandbox.totals().max_concurrent == 0

    eventually(free)


def test_http10_reply_has_no_length(client: Client) -> None:
    """The reply ends with the connection, even if the client requests to keep it."""
    received = client.exchange(client.request(client.body("sandbox:http10")))

    assert received.data.startswith(b"HTTP/1.0 200 OK\r\n")
    assert "Content-Length" not in received.head
    assert received.ending == "closed"


def test_repeated_headers_are_sent_twice(client: Client) -> None:
    """Type and length are sent twice with the same value, X-Request-Id with two values."""
    lines = client.post("sandbox:duplicate_headers").head.split("\r\n")

    assert lines.count("Content-Length: 82") == 2
    assert lines.count("Content-Type: text/plain; charset=utf-8") == 2
    assert {"X-Request-Id: 1", "X-Request-Id: 2"} <= set(lines)


def test_wrong_length_is_larger_than_the_body(client: Client) -> None:
    """The connection closes before the announced length is sent."""
    assert "Content-Length: 182" in client.post("sandbox:wrong_length").head


def test_redirect_counts_requests_to_its_target(client: Client) -> None:
    """The Location is another path of the sandbox. Requests to it are counted."""
    assert "\r\nLocation: /social/redirected" in client.post("sandbox:redirect").head
    assert client.sandbox.totals().redirected == 0

    followed = client.request(client.body(), path="/social/redirected", connection="close")
    assert client.exchange(followed).status == 200
    totals = client.sandbox.totals()
    assert (totals.redirected, totals.posts, totals.accepted) == (1, 1, 0)


def test_the_echoed_token_is_also_in_the_headers(client: Client) -> None:
    """It is in a header. With `echo_malformed`, it is in a malformed header line."""
    head = client.post("sandbox:echo_token:400").head
    malformed = client.post("sandbox:echo_malformed").head

    assert head.startswith("HTTP/1.1 400 ")
    assert head.endswith("\r\nX-Request-Authorization: Bearer sandbox-token")
    assert malformed.startswith("HTTP/1.1 200 ")
    assert malformed.endswith("\r\nBearer sandbox-token")


def test_hostile_reply_is_valid_json_with_hostile_texts(client: Client) -> None:
    """Only its texts are hostile."""
    received = client.post("sandbox:hostile")

    assert received.json["error_code"] == HOSTILE_TEXT
    assert received.json["error_message"].startswith(HOSTILE_TEXT * 2)
    assert len(received.json["error_message"]) == HOSTILE_CHARACTERS
    assert len(received.body) < 64 * 1024


def test_gzip_reply_decompresses_to_the_accepted_one(client: Client) -> None:
    """The reply has the header Content-Encoding, and its body is the accepted one."""
    received = client.post("sandbox:gzip")

    assert "\r\nContent-Encoding: gzip" in received.head
    assert gzip.decompress(received.body) == ACCEPTED
    assert client.sandbox.totals().accepted == 1


def test_gzip_bomb_is_a_complete_gzip_file_of_a_gigabyte(client: Client) -> None:
    """A client that decompresses it gets all zeros and a correct checksum."""
    packed = client.post("sandbox:gzip_bomb").body
    assert len(packed) < 2 * 1024 * 1024

    unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)
    total = 0
    while not unpacker.eof:
        zeros = unpacker.decompress(packed, 16 * 1024 * 1024)
        packed = unpacker.unconsumed_tail
        total += len(zeros)
    assert total == BOMB_BYTES


def test_huge_body_is_as_long_as_announced(client: Client) -> None:
    """The large body is complete, and other requests are served meanwhile."""
    received = client.post("sandbox:huge")

    assert f"Content-Length: {HUGE_BYTES}" in received.head
    assert len(received.body) == HUGE_BYTES
    assert received.body.rstrip(b" }").endswith(b'"error_message":null')


def test_endless_body_continues_until_the_client_disconnects(client: Client) -> None:
    """A chunked body is sent as long as the client reads. Other requests are served meanwhile."""
    received = client.exchange(client.request(client.body("sandbox:endless")), most=3_000_000)

    assert received.ending == "open"
    assert "\r\nTransfer-Encoding: chunked" in received.head
    assert received.body.startswith(b"4000\r\n   ")
    assert client.post("sandbox:ok").status == 200


@pytest.mark.parametrize(
    ("payload_id", "message"),
    [
        ("sandbox:", "no behavior ''"),
        ("sandbox:sulk", "no behavior 'sulk'"),
        ("sandbox:ok:1", "the form is sandbox:ok; arguments given: 1"),
        ("sandbox:code", "the form is sandbox:code:<code>[:<status>]; arguments given: 0"),
        ("sandbox:code:1:99", "status of sandbox:code:<code>[:<status>] must be an HTTP status"),
        ("sandbox:status:teapot", "must be an HTTP status from 100 to 999, not 'teapot'"),
        ("sandbox:numeric_code:one", "must be a JSON number"),
        ("sandbox:flaky:-1", "must be a whole number"),
        ("sandbox:slow:nan", "must be a number of seconds"),
        ("sandbox:slow:inf", "must be a number of seconds"),
        ("sandbox:throttle:1%0d%0aX%3A y", "must be text without control characters"),
    ],
)
def test_an_unknown_behavior_is_refused_and_named(
    client: Client, payload_id: str, message: str
) -> None:
    """The reply is a 400 that names the behavior."""
    received = client.post(payload_id)

    assert received.status == 400
    assert received.json["error_code"] == "invalid_request"
    assert message in received.json["error_message"]
    assert client.sandbox.totals().accepted == 0


argument = st.text(max_size=12) | st.from_regex(r"\A[0-9]{1,4}(\.[0-9]{1,3})?\Z")


@given(st.sampled_from(BEHAVIORS), st.lists(argument, max_size=3), st.integers(1, 9))
def test_any_payload_id_is_parsed_or_refused(
    name: str, arguments: list[str], post_number: int
) -> None:
    """Any arguments give a reply with a well-formed head, or a refusal."""
    payload_id = ":".join(["sandbox", name, *arguments])
    try:
        behavior = parse_behavior(payload_id)
    except UnknownBehaviorError as refused:
        assert str(refused)
        return
    reply = reply_to(behavior, post_number=post_number, authorization="Bearer token")

    assert behavior.name == name
    data = b"".join(step for step in islice(reply.steps, 1_000) if isinstance(step, bytes))
    for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        assert b"\r" not in line
        assert b"\n" not in line
