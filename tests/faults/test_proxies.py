"""Proxies: only the proxy of the settings is used, not those of the environment."""

from __future__ import annotations

import math
import socket
import ssl
import sys
import threading
import time
from contextlib import suppress

import pytest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings, SettingsError, State
from harasocial_dispatch.worker.http.endpoint import Endpoint
from support.caller import Caller, error_code
from support.endpoint_faults import dripping
from support.harness import eventually
from support.scripted_server import ScriptedServer, reply, steps, tls_context

OK = reply()
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n"
NOWHERE = "https://127.0.0.1:1/social/messages.json"
#: Through proxies without and with TLS. Python 3.10 supports no tunnel in TLS.
through_tunnels = pytest.mark.parametrize(
    "maybe_tls", [False, True] if sys.version_info >= (3, 11) else [False], indirect=True
)
#: Extra seconds for a busy machine.
MARGIN_SECONDS = 1.5


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and similar variables may be for browsers. The token must not go there."""
    with ScriptedServer(steps(OK)) as trap, Sandbox() as sandbox:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, trap.root_url)
            monkeypatch.setenv(name.upper(), trap.root_url)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        with Caller(sandbox.url) as caller:
            assert caller.send().job_verdict.state is State.SENT
        with Caller(sandbox.url.replace("http:", "https:")) as caller:
            assert error_code(caller.send(deadline_seconds=0.2)) == "connection_failed"

    assert sandbox.totals().posts == 1
    assert trap.connections == 0


def test_proxy_url_applies_to_every_call(maybe_tls: ssl.SSLContext | None) -> None:
    """The request to the proxy has the full URL, and the proxy's user and password."""
    target = "http://127.0.0.1:9/social/messages.json"
    with ScriptedServer(steps(OK), tls=maybe_tls) as proxy:
        url = proxy.root_url.replace("://", "://user:pass@")
        with Caller(target, proxy_url=url) as caller:
            assert {caller.send().job_verdict.state for _ in range(3)} == {State.SENT}

    assert (proxy.connections, len(proxy.requests)) == (1, 3)
    request = proxy.requests[0]
    assert (request.method, request.path) == ("POST", target)
    assert ("Host", "127.0.0.1:9") in request.headers
    assert ("Proxy-Authorization", "Basic dXNlcjpwYXNz") in request.headers
    assert ("Authorization", f"Bearer {DEFAULT_TOKEN}") in request.headers


def test_python_3_10_refuses_a_tunnel_through_an_https_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error names the setting and the versions that support it."""
    monkeypatch.setattr("sys.version_info", (3, 10, 13))
    with pytest.raises(SettingsError, match=r"HARASOCIAL_PROXY_URL .* needs Python 3\.11"):
        Endpoint(Settings(token=DEFAULT_TOKEN, api_url=NOWHERE, proxy_url="https://127.0.0.1:1"))


@through_tunnels
def test_a_tls_call_uses_a_tunnel_so_the_proxy_gets_no_token(
    maybe_tls: ssl.SSLContext | None,
) -> None:
    """After CONNECT, TLS is with the endpoint, which does not get the proxy's password."""
    with ScriptedServer(steps(OK), tls=tls_context()) as server:  # noqa: SIM117
        with TunnelProxy(server.port, maybe_tls) as proxy:
            url = proxy.url.replace("://", "://user:pass@")
            with Caller(server.url, proxy_url=url) as caller:
                assert {caller.send().job_verdict.state for _ in range(3)} == {State.SENT}

    assert (server.connections, len(server.requests)) == (1, 3)
    assert "proxy-authorization" not in server.requests[0].head.fields
    (request,) = proxy.requests
    assert request.startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in request
    assert DEFAULT_TOKEN.encode() not in request


@through_tunnels
def test_the_deadline_ends_a_slow_reply_to_connect(maybe_tls: ssl.SSLContext | None) -> None:
    """The connection to the proxy may use TLS."""
    script = dripping(ESTABLISHED, b"A: b\r\n")
    with ScriptedServer(script, tls=maybe_tls) as proxy:
        assert seconds_to_fail(proxy.root_url, deadline_seconds=0.3) < 0.3 + MARGIN_SECONDS

    assert len(proxy.requests) == 1


@through_tunnels
def test_the_deadline_ends_a_handshake_through_a_slow_proxy(
    maybe_tls: ssl.SSLContext | None,
) -> None:
    """The handshake has the remaining time after the proxy's reply, not a new timeout."""
    script = steps(1.9, ESTABLISHED + b"\r\n", math.inf)
    with ScriptedServer(script, tls=maybe_tls) as proxy:
        assert seconds_to_fail(proxy.root_url, deadline_seconds=2.0) < 2.0 + MARGIN_SECONDS

    assert len(proxy.requests) == 1


@through_tunnels
def test_the_deadline_ends_a_call_through_a_tunnel(maybe_tls: ssl.SSLContext | None) -> None:
    """The tunnel may be TLS within TLS."""
    script = dripping(b"HTTP/1.1 200 OK\r\nA: ", b"a")
    with ScriptedServer(script, tls=tls_context()) as server:  # noqa: SIM117
        with TunnelProxy(server.port, maybe_tls) as proxy:
            with Caller(server.url, proxy_url=proxy.url) as caller:
                began = time.monotonic()
                assert error_code(caller.send(deadline_seconds=1.0)) == "timeout"

    assert time.monotonic() - began < 1.0 + MARGIN_SECONDS


def test_a_connection_through_a_proxy_that_fails_is_closed() -> None:
    """It is closed immediately, not later by Python's garbage collection."""
    with ScriptedServer(steps(ESTABLISHED, b"A:" * 40_000)) as proxy:  # noqa: SIM117
        with Caller(NOWHERE, proxy_url=proxy.root_url) as caller:
            assert error_code(caller.send()) == "connection_failed"
            eventually(lambda: proxy.ended == 1, what="the closing")


def seconds_to_fail(proxy_url: str, *, deadline_seconds: float) -> float:
    """Return the duration of a call that gets no connection through the proxy."""
    with Caller(NOWHERE, proxy_url=proxy_url) as caller:
        began = time.monotonic()
        assert error_code(caller.send(deadline_seconds=deadline_seconds)) == "connection_failed"
        return time.monotonic() - began


class TunnelProxy:
    """Accepts CONNECT requests, and connects each to one port of the loopback address."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self._port = port
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TunnelProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._tls is not None:
            client = self._tls.wrap_socket(client, server_side=True)
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(65536)
        self.requests.append(request)
        endpoint = socket.create_connection(("127.0.0.1", self._port))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pass_on, args=(endpoint, client), daemon=True).start()
        _pass_on(client, endpoint)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one side disconnected
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
