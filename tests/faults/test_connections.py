"""Connections to the endpoint: kept, dropped when stale, and never shut for another call."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
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
#: What a busy machine may add (seconds).
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
    """Keep-alive: one after the other, they need no further one."""
    with ScriptedServer(steps(OK)) as server, Caller(server.url) as caller:
        states = [caller.send().job_verdict.state for _ in range(50)]

    assert set(states) == {State.SENT}
    assert (server.connections, len(server.requests)) == (1, 50)


def test_calls_at_once_keep_a_connection_each() -> None:
    """As many as `in_flight`; the second round needs no further ones."""

    def script() -> Iterator[Step]:
        while len(server.requests) % 4:  # until all four calls of the round are in flight
            yield 0.01
        yield OK

    with ScriptedServer(script) as server, Caller(server.url, in_flight=4) as caller:
        for _ in range(2):
            with ThreadPoolExecutor(4) as threads:
                results = list(threads.map(lambda _: caller.send(), range(4)))
            assert {result.job_verdict.state for result in results} == {State.SENT}

    assert server.connections == 4


def test_tls_connections_are_verified_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate that the system trusts: accepted, on one connection; else not sent."""
    with ScriptedServer(steps(OK), tls=tls_context()) as server:
        with Caller(server.url) as caller:
            assert error_code(caller.send()) == "connection_failed"

        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        with Caller(server.url) as caller:
            assert {caller.send().job_verdict.state for _ in range(20)} == {State.SENT}

    # The refused handshake was one connection, and the trusted one another.
    assert (server.connections, len(server.requests)) == (2, 20)


def test_a_call_that_would_begin_too_late_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its job is released unsent; the connection, which was slow to open, carries the next call."""

    class SlowToOpen(Relay):
        def _serve(self, client: socket.socket) -> None:
            time.sleep(0.4)
            super()._serve(client)

    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with ScriptedServer(steps(OK), tls=tls_context()) as server, SlowToOpen(server.port) as relay:
        url = server.url.replace(f":{server.port}", f":{relay.port}")
        with Caller(url) as caller:
            released = caller.send(start_within_seconds=0.2)
            assert not server.requests
            assert caller.send(start_within_seconds=0.2).job_verdict.state is State.SENT
    assert released.job_verdict == JobVerdict(state=State.QUEUED, attempt_spent=False)
    assert released.lane_verdict == LaneVerdict(effect="none")
    assert (error_code(released), released.attempt_duration_ms) == (None, None)
    assert (relay.connections, len(server.requests)) == (1, 1)


def test_a_system_without_certificates_uses_those_of_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As macOS may be; only the system's own variables come before them."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(requests.utils, "DEFAULT_CA_BUNDLE_PATH", str(CERTIFICATE))
    with ScriptedServer(steps(OK), tls=tls_context()) as server, Caller(server.url) as caller:
        assert caller.send().job_verdict.state is State.SENT


def test_the_deadline_ends_a_reply_that_drips_over_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shutting the plain socket under TLS wakes the thread that reads from it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Sandbox(tls=tls_context()) as sandbox, Caller(sandbox.url) as caller:
        for payload_id in ("sandbox:drip:0.2", "sandbox:hang"):
            began = time.monotonic()
            result = caller.send(payload_id, deadline_seconds=0.3)
            assert error_code(result) == "timeout"
            assert time.monotonic() - began < 0.3 + MARGIN_SECONDS
        assert caller.send().job_verdict.state is State.SENT


def test_a_connection_idle_for_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers close theirs at about that age, and a POST into a closing one is lost."""
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
    """Whether closed in order or reset, nothing is sent into it, so no outcome is in doubt."""
    # A little later, or the end would come with the reply.
    with ScriptedServer(steps(OK, 0.05, ending)) as server, Caller(server.url) as caller:
        for number in range(1, 6):
            assert caller.send().job_verdict.state is State.SENT
            eventually(lambda: server.ended == number, what="the closing")  # noqa: B023 - at once

    assert (server.connections, len(server.requests)) == (5, 5)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("answer", KEPT.values(), ids=KEPT)
def test_a_connection_is_kept_after_a_whole_reply(
    answer: bytes, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever tells where the reply ends, and whatever it means."""
    assert connections_of_three_calls(answer, tls, monkeypatch) == 1


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("answer", NOT_KEPT.values(), ids=NOT_KEPT)
def test_a_connection_is_not_kept_where_the_next_reply_might_be_anothers(
    answer: bytes, tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are left over, an end that is announced, or one that nobody can know."""
    assert connections_of_three_calls(answer, tls, monkeypatch) == 3


def connections_of_three_calls(answer: bytes, tls: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    context = tls_context() if tls else None
    with ScriptedServer(steps(answer), tls=context) as server, Caller(server.url) as caller:
        codes = {error_code(caller.send()) for _ in range(3)}
    assert len(codes) == 1, "a call has got another's reply"
    return server.connections


def test_what_follows_an_unasked_for_switch_of_protocols_is_nobodys_reply() -> None:
    """101: the connection is not used again, so the next call reads its own reply."""
    switching = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n"
    with ScriptedServer(steps(switching, 0.05, OK)) as server, Caller(server.url) as caller:
        results = [caller.send() for _ in range(3)]

    assert [error_code(result) for result in results] == ["invalid_response"] * 3
    assert server.connections == 3


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", reply(b" " * 70_000)])
def test_a_connection_that_is_not_kept_is_closed(answer: bytes) -> None:
    """At once, and not when Python comes to throw it away."""
    with ScriptedServer(steps(answer)) as server, Caller(server.url) as caller:
        caller.send()
        eventually(lambda: server.ended == 1, what="the closing")


def test_nothing_is_sent_after_the_deadline_nor_after_the_end() -> None:
    """Though a kept connection is ready."""
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


def test_what_comes_between_two_dispatches_is_never_the_next_calls_reply() -> None:
    """The event loop does not run then, so only a look at the socket finds a second reply."""
    with ScriptedServer(steps(OK, 0.1, REFUSED)) as server, Caller(server.url) as caller:
        for _ in range(3):
            assert caller.send().job_verdict.state is State.SENT
            caller.halt()
            time.sleep(0.2)
            caller.resume()

    assert (server.connections, len(server.requests)) == (3, 3)


def test_what_comes_on_an_idle_connection_is_never_the_next_calls_reply() -> None:
    """A second reply, a moment after the first: the connection is closed, and not used again."""
    with ScriptedServer(steps(OK, 0.05, REFUSED)) as server, Caller(server.url) as caller:
        for number in range(1, 4):
            assert caller.send().job_verdict.state is State.SENT
            eventually(lambda: server.ended == number, what="the closing")  # noqa: B023 - at once

    assert (server.connections, len(server.requests)) == (3, 3)


def test_a_connection_on_which_the_server_speaks_first_gets_no_request() -> None:
    """Such as SSH: what it said, read or still to be read, is not the reply to anything."""

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

    assert asyncio.run(asyncio.wait_for(connect(), 10)) == (False, False)


def test_a_kept_connection_that_dies_with_the_request_is_not_tried_again() -> None:
    """Not one byte of a reply came, but the request may have been read: nobody may repeat it."""
    answers: Iterator[list[Step]] = iter([[OK], [Ending.RESET], [OK]])
    with ScriptedServer(lambda: next(answers)) as server, Caller(server.url) as caller:
        codes = [error_code(caller.send()) for _ in range(3)]

    assert codes == [None, "connection_lost", None]
    assert (server.connections, len(server.requests)) == (2, 3)


def test_a_reply_that_pauses_for_too_long_is_not_waited_for() -> None:
    """READ_TIMEOUT_SECONDS, however far the deadline is."""
    with ScriptedServer(steps(OK[:9], HANG)) as server:  # noqa: SIM117
        with Caller(server.url, read_timeout_seconds=0.2) as caller:
            began = time.monotonic()
            assert error_code(caller.send(deadline_seconds=30.0)) == "timeout"

    assert 0.2 <= time.monotonic() - began < 0.2 + MARGIN_SECONDS


def test_no_deadline_shuts_a_socket_that_another_call_uses(
    chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many calls share a pool; half are cut off. Each reply belongs to its own request.

    The calls that have time must all be answered, by the reply to their own request.
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
            # A cut-off call is told from one whose connection was taken from under it.
            assert codes[number] in {own, "timeout", "connection_failed"}
    cut_off = sum(code in {"timeout", "connection_failed"} for code in codes.values())
    assert cut_off > 100, "hardly any call was cut off"


def send_numbered(caller: Caller, number: int, deadline_seconds: float) -> Result:
    return caller.send(f"sandbox:code:reply-{number}", deadline_seconds=deadline_seconds)
