"""From the endpoint's name to a connection: lookups and addresses that fail, hang or swallow."""

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

#: What a busy machine may add (seconds).
MARGIN_SECONDS = 4.0
BRIEF = {"connect_timeout_seconds": 0.2}

Lookup = Callable[..., Any]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lookup]:
    """Host name → what looking it up does; other names are looked up as ever."""
    known: dict[str, Lookup] = {}
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        return known.get(host, real)(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def addresses(port: int, *hosts: str) -> Lookup:
    """Return a lookup that finds these addresses."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]
    return lambda *_, **__: found


def fails(*_: Any, **__: Any) -> Any:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize("host", ["api.invalid", f"{'a' * 64}.invalid"])
def test_a_name_that_cannot_be_looked_up_is_a_failed_connection(
    host: str, names: dict[str, Lookup]
) -> None:
    """DNS says no, or it is no name: transient, since the request did not go out."""
    names["api.invalid"] = fails
    with Caller(f"https://{host}/") as caller:
        result = caller.send()

    assert error_code(result) == "connection_failed"
    assert result.job_verdict.state is State.RETRYING


def test_a_name_lookup_that_hangs_is_left_at_the_deadline(names: dict[str, Lookup]) -> None:
    """However long the resolver takes, no call waits beyond its deadline."""
    answered = threading.Event()
    lookups = []

    def hang(host: str, *_: Any, **__: Any) -> Any:
        lookups.append(host)
        answered.wait()
        raise socket.gaierror

    names["api.invalid"] = hang
    with Caller("https://api.invalid/", deadline_seconds=0.3) as caller:
        began = time.monotonic()
        # More at once than there are lookups under way at once.
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
    assert len(lookups) == waited, "a name was looked up for a call that had ended"


def test_an_address_that_swallows_connections_is_left_after_the_connect_timeout() -> None:
    """Packets dropped by a firewall, say: transient, since the request did not go out."""
    with swallowing() as port, Caller(f"http://127.0.0.1:{port}/", **BRIEF) as caller:
        began = time.monotonic()
        result = caller.send()
        took_seconds = time.monotonic() - began

    assert error_code(result) == "connection_failed"
    assert 0.2 <= took_seconds < 0.2 + MARGIN_SECONDS


def test_many_such_addresses_take_no_longer_than_the_deadline(names: dict[str, Lookup]) -> None:
    """Each address has the connect timeout; all together have the call's deadline."""
    with swallowing() as port:
        names["api.invalid"] = addresses(port, *(["127.0.0.1"] * 50))
        with Caller(f"http://api.invalid:{port}/", **BRIEF) as caller:
            began = time.monotonic()
            result = caller.send(deadline_seconds=0.5)
            took_seconds = time.monotonic() - began

    assert error_code(result) == "connection_failed"
    assert took_seconds < 0.5 + MARGIN_SECONDS


def test_a_second_address_is_tried_where_the_first_refuses(names: dict[str, Lookup]) -> None:
    """A host of two addresses, as with IPv6 and IPv4, is reached while one of them works."""
    with Sandbox() as sandbox:
        names["api.invalid"] = addresses(sandbox.port, "127.0.0.2", "127.0.0.1")
        with Caller(sandbox.url.replace("127.0.0.1", "api.invalid")) as caller:
            assert caller.send().job_verdict.state is State.SENT


def test_an_ipv6_address_works() -> None:
    """In brackets, as a URL writes it."""
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
def test_a_request_names_its_host_and_target(
    api_url: str, line: str, host: str, names: dict[str, Lookup]
) -> None:
    """And the four headers of the contract, beside its length, in this order and once each."""
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
    """Yield a port of the loopback address on which connecting gets no answer at all."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        # Once the queue of connections that nobody takes is full, the system drops what comes.
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
