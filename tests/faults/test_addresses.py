"""Connecting to the endpoint: lookups and addresses that fail, hang or do not respond."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import pytest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import State
from support.caller import Caller, error_code
from support.scripted_server import ScriptedServer, reply, steps

#: Extra seconds for a busy machine.
MARGIN_SECONDS = 4.0
BRIEF = {"connect_timeout_seconds": 0.2}

Lookup = Callable[..., Any]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lookup]:
    """Host name → the function that looks it up. Other names are looked up normally."""
    known: dict[str, Lookup] = {}
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        return known.get(host, real)(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def addresses(port: int, *hosts: str) -> Lookup:
    """Return a lookup with these addresses as its result."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]
    return lambda *_, **__: found


def fails(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("host", ["api.invalid", f"{'a' * 64}.invalid"])
def test_an_unknown_host_name_is_a_failed_connection(host: str, names: dict[str, Lookup]) -> None:
    """The name does not exist or is invalid. It is transient: the request did not go out."""
    names["api.invalid"] = fails
    with Caller(f"https://{host}/") as caller:
        result = caller.send()

    assert error_code(result) == "connection_failed"
    assert result.job_verdict.state is State.RETRYING


def test_a_hanging_name_lookup_ends_at_the_deadline(names: dict[str, Lookup]) -> None:
    """A slow resolver does not delay a call beyond its deadline."""
    answered = threading.Event()
    lookups = []

    def hang(host: str, *_: Any, **__: Any) -> Any:
        lookups.append(host)
        answered.wait()
        raise socket.gaierror

    names["api.invalid"] = hang
    with Caller("https://api.invalid/", deadline_seconds=0.3) as caller:
        began = time.monotonic()
        # More calls than concurrent lookups.
        with ThreadPoolExecutor(20) as threads:
            results = [threads.submit(caller.send) for _ in range(20)]
            codes = {error_code(result.result()) for result in results}
        took_seconds = time.monotonic() - began
    waited = len(lookups)
    answered.set()
    with Sandbox() as sandbox, Caller(sandbox.url) as caller:
        assert caller.send().job_verdict.state is State.SENT

    assert codes == {"connection_failed"}
    assert took_seconds < 0.3 + MARGIN_SECONDS
    assert 0 < waited <= 8
    assert len(lookups) == waited, "a name was looked up for an ended call"


def test_an_unresponsive_address_fails_after_the_connect_timeout() -> None:
    """For example, a firewall drops packets. It is transient: the request did not go out."""
    with swallowing() as port, Caller(f"http://127.0.0.1:{port}/", **BRIEF) as caller:
        began = time.monotonic()
        result = caller.send()
        took_seconds = time.monotonic() - began

    assert error_code(result) == "connection_failed"
    assert 0.2 <= took_seconds < 0.2 + MARGIN_SECONDS


def test_many_unresponsive_addresses_end_at_the_deadline(names: dict[str, Lookup]) -> None:
    """Each address has the connect timeout. The call's deadline applies to all together."""
    with swallowing() as port:
        names["api.invalid"] = addresses(port, *(["127.0.0.1"] * 50))
        with Caller(f"http://api.invalid:{port}/", **BRIEF) as caller:
            began = time.monotonic()
            result = caller.send(deadline_seconds=0.5)
            took_seconds = time.monotonic() - began

    assert error_code(result) == "connection_failed"
    assert took_seconds < 0.5 + MARGIN_SECONDS


def test_a_second_address_is_tried_if_the_first_refuses(names: dict[str, Lookup]) -> None:
    """A host with two addresses, such as IPv6 and IPv4, is reached if one of them works."""
    with Sandbox() as sandbox:
        names["api.invalid"] = addresses(sandbox.port, "127.0.0.2", "127.0.0.1")
        with Caller(sandbox.url.replace("127.0.0.1", "api.invalid")) as caller:
            assert caller.send().job_verdict.state is State.SENT


def test_an_ipv6_address_works() -> None:
    """The URL has the address in brackets."""
    with Sandbox("::1") as sandbox, Caller(sandbox.url) as caller:
        assert caller.send().job_verdict.state is State.SENT


@pytest.mark.parametrize(
    ("api_url", "line", "host"),
    [
        ("http://api.invalid:{port}/a/b?c=d&e", "/a/b?c=d&e", "api.invalid:{port}"),
        ("http://API.invalid:{port}", "/", "api.invalid:{port}"),
        ("http://bücher.invalid:{port}/ü", "/%C3%BC", "xn--bcher-kva.invalid:{port}"),
    ],
)
def test_a_request_has_its_host_and_target(
    api_url: str, line: str, host: str, names: dict[str, Lookup]
) -> None:
    """The four headers of the contract and the length have a fixed order, once each."""
    with ScriptedServer(steps(reply())) as server:
        names["api.invalid"] = names["xn--bcher-kva.invalid"] = addresses(server.port, "127.0.0.1")
        with Caller(api_url.format(port=server.port)) as caller:
            assert caller.send().job_verdict.state is State.SENT

    (request,) = server.requests
    assert (request.method, request.path) == ("POST", line)
    assert [": ".join(header) for header in request.headers] == [
        f"Host: {host.format(port=server.port)}",
        "Accept-Encoding: identity",
        "accept: text/plain",
        "Content-Type: application/json-patch+json",
        f"User-Agent: harasocial-dispatch/{version('harasocial-dispatch')}",
        f"Authorization: Bearer {DEFAULT_TOKEN}",
        f"Content-Length: {len(request.body)}",
    ]


@contextmanager
def swallowing() -> Iterator[int]:
    """Yield a port of the loopback address where connection attempts get no reply."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        # If the queue of unaccepted connections is full, the system drops new connections.
        waiting = []
        while True:
            client = socket.socket()
            client.settimeout(0.1)
            waiting.append(client)
            try:
                client.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port
        for client in waiting:
            client.close()
