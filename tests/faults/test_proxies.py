"""Proxies: those of the environment are not used; the one of the settings is."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType

import pytest
from calling import Caller, error_code
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import State
from raw_server import CERTIFICATE, RawServer, reply, steps, tls_context

OK = reply()


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and its kin may be meant for browsers; the token must not travel there."""
    with RawServer(steps(OK)) as trap, Sandbox() as sandbox:
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


def test_proxy_url_leads_every_call_through_the_proxy() -> None:
    """The whole URL is asked of the proxy, which is told its own user and password."""
    target = "http://127.0.0.1:9/social/messages.json"
    with RawServer(steps(OK)) as proxy:
        url = proxy.root_url.replace("://", "://user:pass@")
        with Caller(target, proxy_url=url) as caller:
            assert {caller.send().job_verdict.state for _ in range(3)} == {State.SENT}

    assert (proxy.connections, len(proxy.requests)) == (1, 3)
    head = proxy.requests[0].decode()
    assert head.startswith(f"POST {target} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" in head
    assert f"Authorization: Bearer {DEFAULT_TOKEN}\r\n" in head


def test_a_tls_call_tunnels_through_the_proxy_which_sees_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CONNECT, then TLS with the endpoint itself."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Sandbox(tls=tls_context()) as sandbox, TunnelProxy(sandbox.port) as proxy:  # noqa: SIM117
        with Caller(sandbox.url, proxy_url=proxy.url) as caller:
            assert {caller.send().job_verdict.state for _ in range(3)} == {State.SENT}

    assert sandbox.totals().posts == 3
    (request,) = proxy.requests
    assert request.startswith(f"CONNECT 127.0.0.1:{sandbox.port} HTTP/1.".encode())
    assert DEFAULT_TOKEN.encode() not in request


class TunnelProxy:
    """Takes CONNECT requests, and leads each to one port of the loopback address."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> TunnelProxy:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += client.recv(65536)
        self.requests.append(request)
        endpoint = socket.create_connection(("127.0.0.1", self._port))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=_pass_on, args=(endpoint, client), daemon=True).start()
        _pass_on(client, endpoint)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one side went away
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
