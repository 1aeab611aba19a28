"""Connections to the endpoint: kept, closed if stale, and never closed for another call."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from harasocial_dispatch.ledger import Result
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.sandbox.contract import ACCEPTED_BODY
from harasocial_dispatch.sandbox.reply import HANG, Ending, Step
from harasocial_dispatch.schemas import JobVerdict, LaneVerdict, State
from harasocial_dispatch.worker.http import CallFailed, Reply
from harasocial_dispatch.worker.http import client as clients
from harasocial_dispatch.worker.http import connection as connections
from harasocial_dispatch.worker.http import pool as pools
from support.caller import Caller, error_code
from support.endpoint_faults import CHUNKED, CHUNKED_BODY, head
from support.harness import eventually
from support.relay import Relay
from support.scripted_server import CERTIFICATE, ScriptedServer, reply, steps, tls_context

OK = reply()
#: Extra seconds for a busy machine.
MARGIN_SECONDS = 4.0
PACKED = gzip.compress(ACCEPTED_BODY)
REFUSED = reply(b'{"has_error":true,"error_code":"551","error_message":"away"}')
#: Fills the 8 KB that are read at once, so that what follows waits where no poll sees it: in TLS.
FULL = reply(ACCEPTED_BODY, "A: " + "a" * (8192 - len(OK) - 5))

KEPT = {
    "a length": OK,
    "a length in another case": OK.replace(b"Content-Length", b"CONTENT-length"),
    "chunked": CHUNKED + CHUNKED_BODY + b"\r\n",
    "chunked in another case": (CHUNKED + CHUNKED_BODY + b"\r\n").replace(b"chunked", b"Chunked"),
    "chunked, with trailers": CHUNKED + CHUNKED_BODY + b"A: b\r\n\r\n",
    "packed": reply(PACKED, "Content-Encoding: gzip"),
    "packed and chunked": head(
        "HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Encoding: gzip"
    )
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(PACKED), PACKED),
    "HTTP/1.0 that stays": OK.replace(b"/1.1", b"/1.0").replace(
        b"\r\n", b"\r\nConnection: keep-alive\r\n", 1
    ),
    "no body": head("HTTP/1.1 204 No Content"),
    "an empty body": reply(b""),
    "an error": reply(b"", status="503 Busy"),
}
NOT_KEPT = {
    "a second reply": OK + REFUSED,
    "a second reply further on": FULL + REFUSED,
    "part of a second reply": OK + REFUSED[:9],
    "more than the length": OK + b" ",
    "more than the chunks": CHUNKED + CHUNKED_BODY + b"\r\n ",
    "204 with a body": OK.replace(b"200", b"204"),
    "304 with a body": OK.replace(b"200", b"304"),
    "close": reply(ACCEPTED_BODY, "Connection: Close"),
    "close in a list": reply(ACCEPTED_BODY, "Connection: te, close"),
    "close in a second header": reply(ACCEPTED_BODY, "Connection: keep-alive", "Connection: close"),
    "HTTP/1.0": OK.replace(b"/1.1", b"/1.0"),
    "an unknown transfer coding": reply(ACCEPTED_BODY, "Transfer-Encoding: gzip, chunked"),
    "no length of a known coding": reply(b"no gzip", "Content-Encoding: gzip"),
    "more than is read": reply(b" " * 70_000),
    "a length on a line of its own": OK.replace(b"Length: ", b"Length:\r\n\t"),
    "a length twice": reply(ACCEPTED_BODY, f"Content-Length: {len(ACCEPTED_BODY)}"),
    "two lengths": reply(ACCEPTED_BODY, "Content-Length: 5"),
}


def test_many_calls_use_one_connection() -> None:
    """Consecutive calls reuse the same connection (keep-alive)."""
    with ScriptedServer(steps(OK)) as server, Caller(server.url) as caller:
        states = [caller.send().job_verdict.state for _ in range(50)]

    assert set(states) == {State.SENT}
    assert (server.connections, len(server.requests)) == (1, 50)


def test_concurrent_calls_keep_one_connection_each() -> None:
    """There are as many connections as calls. The second round opens no more."""

    def script() -> Iterator[Step]:
        while len(server.requests) % 4:  # wait until all four calls of the round are in flight
            yield 0.01
        yield OK

    with ScriptedServer(script) as server, Caller(server.url, in_flight=4) as caller:
        for _ in range(2):
            with ThreadPoolExecutor(4) as threads:
                results = list(threads.map(lambda _: caller.send(), range(4)))
            assert {result.job_verdict.state for result in results} == {State.SENT}

    assert server.connections == 4


def test_tls_connections_are_verified_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a trusted certificate, all calls use one connection. Without it, nothing is sent."""
    with ScriptedServer(steps(OK), tls=tls_context()) as server:
        with Caller(server.url) as caller:
            assert error_code(caller.send()) == "connection_failed"

        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with Caller(server.url) as caller:
            assert {caller.send().job_verdict.state for _ in range(20)} == {State.SENT}

    # One connection for the refused handshake, and one for the trusted one.
    assert (server.connections, len(server.requests)) == (2, 20)


@pytest.mark.usefixtures("trusted_certificate")
def test_a_call_that_would_begin_too_late_is_not_made() -> None:
    """Its job is released unsent; the connection, which was slow to open, carries the next call."""

    class SlowToOpen(Relay):
        def _serve(self, client: socket.socket) -> None:
            time.sleep(0.4)
            super()._serve(client)

    tls = tls_context()
    # A session ticket that arrives after the handshake is unread data: until the client has read
    # it, it would not reuse the connection.
    tls.num_tickets = 0
    with ScriptedServer(steps(OK), tls=tls) as server, SlowToOpen(server.port) as relay:
        url = server.url.replace(f":{server.port}", f":{relay.port}")
        with Caller(url) as caller:
            released = caller.send(start_within_seconds=0.2)
            assert not server.requests
            # It may begin late on a busy machine, but not on another connection: see below.
            assert caller.send(start_within_seconds=30.0).job_verdict.state is State.SENT
    assert released.job_verdict == JobVerdict(state=State.QUEUED, attempt_spent=False)
    assert released.lane_verdict == LaneVerdict(effect="none")
    assert (error_code(released), released.attempt_duration_ms) == (None, None)
    assert (relay.connections, len(server.requests)) == (1, 1)


def test_a_system_without_certificates_uses_those_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some systems have none. Only the variables of the environment take precedence."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(requests.utils, "DEFAULT_CA_BUNDLE_PATH", str(CERTIFICATE))
    with ScriptedServer(steps(OK), tls=tls_context()) as server, Caller(server.url) as caller:
        assert caller.send().job_verdict.state is State.SENT


@pytest.mark.usefixtures("trusted_certificate")
def test_the_deadline_ends_a_slow_reply_over_tls() -> None:
    """Shutting the plain socket under TLS wakes the thread that reads from it."""
    with Sandbox(tls=tls_context()) as sandbox, Caller(sandbox.url) as caller:
        for payload_id in ("sandbox:drip:0.2", "sandbox:hang"):
            began = time.monotonic()
            result = caller.send(payload_id, deadline_seconds=0.3)
            assert error_code(result) == "timeout"
            assert time.monotonic() - began < 0.3 + MARGIN_SECONDS
        assert caller.send().job_verdict.state is State.SENT


def test_a_connection_idle_for_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers close idle connections after about this time, and a POST could be lost."""
    with ScriptedServer(steps(OK)) as server, Caller(server.url) as caller:
        caller.send()
        caller.send()
        assert server.connections == 1

        for module in (connections, pools):
            monkeypatch.setattr(module, "MAX_IDLE_SECONDS", 0.0)
        assert caller.send().job_verdict.state is State.SENT

    assert server.connections == 2


@pytest.mark.parametrize("ending", [Ending.CLOSE, Ending.RESET])
def test_a_kept_connection_that_the_server_has_closed_is_not_used_again(ending: Ending) -> None:
    """After a normal close or a reset, nothing is sent on it, so no outcome is unknown."""
    # Wait a little, so that the end does not arrive with the reply.
    with ScriptedServer(steps(OK, 0.05, ending)) as server, Caller(server.url) as caller:
        for number in range(1, 6):
            assert caller.send().job_verdict.state is State.SENT
            eventually(lambda: server.ended == number, what="the closing")  # noqa: B023 - at once

    assert (server.connections, len(server.requests)) == (5, 5)


@pytest.mark.parametrize("answer", KEPT.values(), ids=KEPT)
def test_a_connection_is_kept_after_a_complete_reply(
    answer: bytes, maybe_tls: ssl.SSLContext | None
) -> None:
    """The rule applies to every kind of length, and to every status."""
    assert connections_of_three_calls(answer, maybe_tls) == 1


@pytest.mark.parametrize("answer", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_connection_is_not_kept_if_the_next_reply_could_be_wrong(
    answer: bytes, maybe_tls: ssl.SSLContext | None
) -> None:
    """The cases are additional bytes, an announced close, or a reply of unknown length."""
    assert connections_of_three_calls(answer, maybe_tls) == 3


def connections_of_three_calls(answer: bytes, tls: ssl.SSLContext | None) -> int:
    with ScriptedServer(steps(answer), tls=tls) as server, Caller(server.url) as caller:
        codes = {error_code(caller.send()) for _ in range(3)}
    assert len(codes) == 1, "a call got the reply to another call"
    return server.connections


def test_a_connection_is_not_kept_after_an_unexpected_101() -> None:
    """After a 101, the next call uses a new connection and gets its own reply."""
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n"
    with ScriptedServer(steps(switching, 0.05, OK)) as server, Caller(server.url) as caller:
        results = [caller.send() for _ in range(3)]

    assert [error_code(result) for result in results] == ["invalid_response"] * 3
    assert server.connections == 3


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", reply(b" " * 70_000)])
def test_a_connection_that_is_not_kept_is_closed(answer: bytes) -> None:
    """It is closed immediately, not later by Python's garbage collection."""
    with ScriptedServer(steps(answer)) as server, Caller(server.url) as caller:
        caller.send()
        eventually(lambda: server.ended == 1, what="the closing")


def test_nothing_is_sent_after_the_deadline_or_after_close() -> None:
    """A kept connection is not used either."""
    with ScriptedServer(steps(OK)) as server, Caller(server.url) as caller:
        caller.send()
        late = caller.send(deadline_seconds=0.0)
        caller.send()
        caller.halt()
        caller.client.close()
        endings: list[Reply | CallFailed] = []
        caller.client.post(b"", time.monotonic() + 10, endings.append)

    assert error_code(late) == "connection_failed"
    assert [getattr(ending, "kind", None) for ending in endings] == ["connection_failed"]
    assert len(server.requests) == 2


def test_data_between_two_dispatches_is_never_the_reply_to_the_next_call() -> None:
    """The event loop does not run then. Only a check of the socket detects a second reply."""
    between, second_replies = threading.Event(), []

    def script() -> Iterator[Step]:
        yield OK
        while not between.is_set():
            yield 0.01
        yield REFUSED
        second_replies.append(1)

    with ScriptedServer(script) as server, Caller(server.url) as caller:
        for number in range(1, 4):
            assert caller.send().job_verdict.state is State.SENT
            caller.halt()
            between.set()
            eventually(lambda: len(second_replies) == number, what="the data")  # noqa: B023
            between.clear()
            caller.resume()

    assert (server.connections, len(server.requests)) == (3, 3)


def test_data_on_an_idle_connection_is_never_the_reply_to_the_next_call() -> None:
    """After a second reply, shortly after the first, the connection is closed."""
    with ScriptedServer(steps(OK, 0.05, REFUSED)) as server, Caller(server.url) as caller:
        for number in range(1, 4):
            assert caller.send().job_verdict.state is State.SENT
            eventually(lambda: server.ended == number, what="the closing")  # noqa: B023 - at once

    assert (server.connections, len(server.requests)) == (3, 3)


def test_a_connection_with_early_server_data_gets_no_request() -> None:
    """For example SSH. Data from before the request is not a reply."""

    async def connect() -> tuple[bool, bool]:
        near, far = socket.socketpair()
        with far:
            far.sendall(OK)
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(connections.Connection, sock=near)
            at_once = connection.is_quiet()
            while connection.is_open:
                await asyncio.sleep(0.001)
            return at_once, connection.is_quiet()

    assert asyncio.run(asyncio.wait_for(connect(), 60)) == (False, False)


def test_a_request_on_a_lost_kept_connection_is_not_repeated() -> None:
    """No byte of a reply arrived, but the server may have processed the request."""
    answers: Iterator[list[Step]] = iter([[OK], [Ending.RESET], [OK]])
    with ScriptedServer(lambda: next(answers)) as server, Caller(server.url) as caller:
        codes = [error_code(caller.send()) for _ in range(3)]

    assert codes == [None, "connection_lost", None]
    assert (server.connections, len(server.requests)) == (2, 3)


def test_a_reply_that_pauses_too_long_is_a_timeout() -> None:
    """READ_TIMEOUT_SECONDS applies, even if the deadline is later."""
    with ScriptedServer(steps(OK[:9], HANG)) as server:  # noqa: SIM117
        with Caller(server.url, read_timeout_seconds=0.2) as caller:
            began = time.monotonic()
            assert error_code(caller.send(deadline_seconds=30.0)) == "timeout"

    assert 0.2 <= time.monotonic() - began < 0.2 + MARGIN_SECONDS


def test_a_deadline_never_closes_the_connection_of_another_call(
    chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many calls share a pool, and half of them reach their deadline.

    All other calls must get the reply to their own request.
    """
    monkeypatch.setattr(clients, "WATCH_EVERY_SECONDS", 0.002)
    calls = [(i, 30.0 if i % 2 else chance.uniform(0.005, 0.1)) for i in range(600)]
    chance.shuffle(calls)

    with Sandbox() as sandbox, Caller(sandbox.url, in_flight=16) as caller:
        sandbox.latency_seconds = 0.08
        with ThreadPoolExecutor(16) as threads:
            codes = dict(
                zip(
                    (number for number, _ in calls),
                    threads.map(lambda c: error_code(send_numbered(caller, *c)), calls),
                    strict=True,
                )
            )

    for number, seconds in calls:
        own = f"reply-{number}"
        if seconds == 30.0:
            assert codes[number] == own
        else:
            # A timeout is distinct from the loss of a connection that another call closed.
            assert codes[number] in {own, "timeout", "connection_failed"}
    cut_off = sum(code in {"timeout", "connection_failed"} for code in codes.values())
    assert cut_off > 100, "too few calls reached their deadline"


def send_numbered(caller: Caller, number: int, deadline_seconds: float) -> Result:
    return caller.send(f"sandbox:code:reply-{number}", deadline_seconds=deadline_seconds)
