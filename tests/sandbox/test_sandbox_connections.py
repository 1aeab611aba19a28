"""HTTP/1.1 connections: keep-alive, requests in pieces, limits, TLS."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import tracemalloc
from pathlib import Path

import pytest
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.sandbox.request import Head, RefusedRequestError
from hypothesis import given
from hypothesis import strategies as st
from support.exact_client import Client
from support.harness import eventually

#: A certificate for 127.0.0.1 and its key. Only tests use them.
CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"

HEADERS = {
    "accept": "text/plain",
    "Authorization": "Bearer sandbox-token",
    "Content-Type": "application/json-patch+json",
}


def test_one_connection_serves_many_requests(client: Client) -> None:
    """A client that keeps its connection gets every reply on it, including refusals."""
    connection = http.client.HTTPConnection(client.sandbox.host, client.sandbox.port, timeout=60)
    connection.connect()
    local_address = connection.sock.getsockname()
    for payload_id, status in [("sandbox:ok", 200), ("sandbox:status:500", 500), ("x", 200)] * 3:
        body = json.dumps(client.body(payload_id))
        connection.request("POST", "/social/messages.json", body, HEADERS)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (status, True)
    assert connection.sock.getsockname() == local_address
    connection.close()


@pytest.mark.parametrize(
    ("version", "connection", "ending"),
    [("1.1", None, "open"), ("1.1", "close", "closed"), ("1.0", None, "closed")],
)
def test_a_connection_is_kept_unless_the_client_requests_otherwise(
    client: Client, version: str, connection: str | None, ending: str
) -> None:
    """HTTP/1.1 keeps the connection by default. HTTP/1.0 does not."""
    request = client.request(client.body(), connection=connection)
    request = request.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)

    received = client.exchange(request, silence_seconds=2 if ending == "open" else 60)
    assert (received.status, received.ending) == (200, ending)


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """Pipelined requests wait for a previous slow request."""
    received = client.exchange(
        client.request(client.body("sandbox:slow:0.05"))
        + client.request(client.body("sandbox:code:7"))
        + client.request(client.body("sandbox:status:503"), connection="close")
    )

    replies = received.data.split(b"HTTP/1.1 ")[1:]
    assert [reply[:3] for reply in replies] == [b"200", b"200", b"503"]
    assert b'"error_code":"7"' in replies[1]


def test_a_request_may_arrive_in_pieces(client: Client) -> None:
    """A request may be sent byte by byte."""
    request = client.request(client.body("sandbox:ok"), connection="close")
    with client.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert client.sandbox.totals().requests == 1


def test_an_incomplete_request_is_not_a_post(client: Client) -> None:
    """A client that disconnects before the end of its body has posted nothing."""
    with client.connect() as connection:
        connection.sendall(client.request(client.body())[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert client.sandbox.totals().requests == 0


def test_an_expectation_is_answered_before_the_body_arrives(client: Client) -> None:
    """A client with `Expect: 100-continue` gets a 100 first."""
    request = client.request(client.body(), expect="100-continue", connection="close")
    head, _, body = request.partition(b"\r\n\r\n")
    with client.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /social/messages.json HTTP/2.0\r\nhost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nlong: " + b"x" * 17_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nlong: " + b"x" * 17_000, 431),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\n" + b"x" * 500_000, 413),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else None,
)
def test_an_invalid_request_is_refused_and_the_connection_is_closed(
    client: Client, start: bytes, status: int
) -> None:
    """The client receives the refusal even if the server has not read all its data."""
    received = client.exchange(start)

    assert (received.status, received.ending) == (status, "closed")
    assert "\r\nConnection: close" in received.head
    assert client.post().status == 200


def test_a_client_that_sends_too_much_is_disconnected(client: Client) -> None:
    """Data that arrives during a reply is buffered, up to a limit."""
    with client.connect() as connection:
        connection.sendall(client.request(client.body("sandbox:hang")))
        eventually(lambda: client.sandbox.totals().posts == 1)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1_000):
                connection.sendall(b"x" * 65_536)


def test_a_reply_is_paused_while_the_client_does_not_read(client: Client) -> None:
    """The server pauses an endless reply instead of buffering it, and then resumes it."""
    request = client.request(client.body("sandbox:endless"))
    with client.connect() as connection:
        tracemalloc.start()
        connection.sendall(request)
        eventually(lambda: client.sandbox.totals().posts == 1)
        time.sleep(0.5)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_bytes < 2_000_000

        received = 0
        while received < 20_000_000:  # more than the sockets can have buffered
            received += len(connection.recv(1 << 20))


@given(
    st.binary(max_size=200)
    | st.text(max_size=99).map(lambda text: f"POST / HTTP/1.1\r\nhost: a\r\n{text}".encode())
)
def test_any_head_is_parsed_or_refused(head: bytes) -> None:
    """The only possible exception of the parser is a refusal."""
    try:
        assert isinstance(Head(head + b"\r\n\r\n"), Head)
    except RefusedRequestError as refused:
        assert refused.status in {400, 411, 413}


def test_the_server_supports_tls() -> None:
    """With a TLS context, all replies work over TLS, including resets."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    trusting = ssl.create_default_context(cafile=CERTIFICATE)
    with Sandbox(tls=server) as sandbox:
        client = Client(sandbox)
        assert sandbox.url.startswith("https://127.0.0.1:")
        connection = http.client.HTTPSConnection(
            sandbox.host, sandbox.port, timeout=60, context=trusting
        )
        for payload_id in ("sandbox:ok", "sandbox:slow:0.01"):
            body = json.dumps(client.body(payload_id))
            connection.request("POST", "/social/messages.json", body, HEADERS)
            assert json.loads(connection.getresponse().read())["has_error"] is False
        body = json.dumps(client.body("sandbox:reset"))
        connection.request("POST", "/social/messages.json", body, HEADERS)
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            connection.getresponse()
        connection.close()


def test_a_client_without_tls_does_not_affect_others() -> None:
    """A client that sends plain text or nothing affects neither other clients nor the stop."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    with Sandbox(tls=server) as sandbox:
        client = Client(sandbox)
        assert b"200 OK" not in client.post().data
        silent = client.connect()
        connection = http.client.HTTPSConnection(
            sandbox.host,
            sandbox.port,
            timeout=60,
            context=ssl.create_default_context(cafile=CERTIFICATE),
        )
        connection.request("POST", "/social/messages.json", json.dumps(client.body()), HEADERS)
        assert connection.getresponse().status == 200
        connection.close()
    silent.close()
