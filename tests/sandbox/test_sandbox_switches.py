"""The switches of a running sandbox, and its start and stop."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress

import pytest
from harasocial_dispatch.sandbox import Sandbox
from support.exact_client import Client
from support.harness import eventually


def test_fail_with_applies_to_every_post(client: Client) -> None:
    """Every POST, valid or not, gets the status until it is disabled. All POSTs are counted."""
    client.sandbox.fail_with(503)
    for payload_id in ("sandbox:ok", "sandbox:drop", "sandbox:unheard-of"):
        assert client.post(payload_id).status == 503
    assert client.exchange(client.request(b"?", connection="close")).status == 503

    client.sandbox.fail_with(None)
    assert client.post("sandbox:ok").status == 200
    totals = client.sandbox.totals()
    assert (totals.posts, totals.accepted) == (5, 1)


def test_latency_delays_every_post(client: Client) -> None:
    """The sandbox's own paths have no delay."""
    client.sandbox.latency_seconds = 30.0
    started = time.monotonic()
    assert client.control("GET", "health") == {"healthy": True}
    assert time.monotonic() - started < 30.0

    client.sandbox.latency_seconds = 0.15
    started = time.monotonic()
    assert client.post("sandbox:status:500").status == 500
    assert time.monotonic() - started >= 0.15


def test_a_replaced_token_is_valid_immediately(client: Client) -> None:
    """A page with a refused token is accepted after the tokens were replaced."""
    client.sandbox.tokens = {"*": "new"}
    assert client.post().status == 401

    client.sandbox.tokens = {"*": "new", "500725830264749": "sandbox-token"}
    assert client.post().status == 200


def test_tokens_are_a_copy(client: Client) -> None:
    """A later change of the given mapping has no effect."""
    tokens = {"*": "sandbox-token"}
    client.sandbox.tokens = tokens
    tokens.clear()

    assert client.post().status == 200


def test_down_refuses_connections_and_up_accepts_them_on_the_same_port(client: Client) -> None:
    """The port is closed. Received data and the port number are kept."""
    port = client.sandbox.port
    with client.connect() as idle:
        idle.sendall(client.request(client.body()))
        assert idle.recv(65536).startswith(b"HTTP/1.1 200 OK")
        client.sandbox.down()
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        client.connect()
    client.sandbox.down()

    client.sandbox.up()
    client.sandbox.up()
    assert client.sandbox.port == port
    assert client.post().status == 200
    assert client.sandbox.totals().accepted == 2


def test_down_closes_a_connection_that_is_being_accepted(client: Client) -> None:
    """Repeated attempts cover the moment in which a connection is accepted."""
    for _ in range(30):
        with client.connect() as connection:
            client.sandbox.down()
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        client.sandbox.up()


def test_down_completes_replies_in_progress(client: Client) -> None:
    """A received request gets its reply. Then its connection closes."""
    with client.connect() as connection:
        connection.sendall(client.request(client.body("sandbox:slow:0.1")))
        eventually(lambda: client.sandbox.totals().posts == 1)
        client.sandbox.down()
        connection.settimeout(60)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
        assert reply.startswith(b"HTTP/1.1 200 OK")


def test_switches_over_http(client: Client) -> None:
    """A JSON object with the changes is sent to the sandbox of another process."""
    reply = client.control("POST", "switch", {"fail_with": 502, "tokens": {"*": "another"}})
    assert reply == {"fail_with": 502, "latency_seconds": 0.0, "tokens": {"*": "***"}}
    assert client.post().status == 502

    client.control("POST", "switch", {"fail_with": None})
    assert client.post().status == 401
    assert client.control("POST", "switch", {"latency_seconds": 0.01})["fail_with"] is None
    assert client.sandbox.latency_seconds == 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fail_with": 99}, "fail_with must be an HTTP status"),
        ({"fail_with": True}, "fail_with must be an HTTP status"),
        ({"fail_with": "503"}, "fail_with must be an HTTP status"),
        ({"latency_seconds": -1}, "latency_seconds must be a number"),
        ({"latency_seconds": "1"}, "latency_seconds must be a number"),
        ({"latency_seconds": None}, "latency_seconds must be a number"),
        ({"tokens": {"*": ""}}, "tokens must map"),
        ({"tokens": ["token"]}, "tokens must map"),
        ({"fail_with": 503, "down": True}, "the switches are an object with some of tokens"),
        ([], "the switches are an object"),
    ],
)
def test_an_invalid_switch_is_named_and_changes_nothing(
    client: Client, changes: object, message: str
) -> None:
    """One invalid value refuses all changes."""
    reply = client.control("POST", "switch", changes)

    assert message in reply["error"]
    assert client.post().status == 200


def test_invalid_switches_raise_in_python_too() -> None:
    """The constructor and the properties validate in the same way."""
    with pytest.raises(ValueError, match="tokens must map"):
        Sandbox(tokens={"1": ""})
    sandbox = Sandbox()
    with pytest.raises(ValueError, match="latency_seconds must be"):
        sandbox.latency_seconds = float("nan")
    with pytest.raises(ValueError, match="fail_with must be"):
        sandbox.fail_with(700)


def test_an_unknown_path_lists_the_paths_of_the_sandbox(client: Client) -> None:
    """An unknown path under /_sandbox/ lists the paths. A wrong method names the right one."""
    assert "/_sandbox/received" in client.control("GET", "recieved")["error"]
    assert client.control("GET", "reset") == {"error": "use POST"}
    assert client.control("POST", "switch", None)["error"]


def sandboxes_running() -> int:
    """Count the running sandboxes of this process. Other tests may share one."""
    return sum(thread.name == "harasocial-sandbox" for thread in threading.enumerate())


def test_it_starts_once_stops_twice_and_starts_again() -> None:
    """A second start is an error, a second stop is not. A restart keeps port and counts."""
    before = sandboxes_running()
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="was not started"):
        _ = sandbox.url
    with pytest.raises(RuntimeError, match="is not started"):
        sandbox.down()
    sandbox.start()
    with pytest.raises(RuntimeError, match="already started"):
        sandbox.start()
    url = sandbox.url
    Client(sandbox).post()
    sandbox.stop()
    sandbox.stop()

    with sandbox:
        assert sandbox.url == url
        Client(sandbox).post()
    assert sandbox.totals().accepted == 2
    assert sandboxes_running() == before


def test_stop_ends_all_replies_in_progress(caplog: pytest.LogCaptureFixture) -> None:
    """Hanging, slow and endless replies do not delay the stop, and end with it."""
    gc.collect()  # the tasks of earlier tests
    caplog.clear()
    with Sandbox() as sandbox:
        client = Client(sandbox)
        connections = []
        for payload_id in ("sandbox:hang", "sandbox:drip:9", "sandbox:endless"):
            connections.append(client.connect())
            connections[-1].sendall(client.request(client.body(payload_id)))
        eventually(lambda: sandbox.totals().posts == 3)
        started = time.monotonic()

    assert time.monotonic() - started < 1
    gc.collect()  # a pending task would log an error now
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    for connection in connections:
        connection.close()


def test_a_port_in_use_is_an_error_at_the_start(sandbox: Sandbox) -> None:
    """The system's error is raised, and no thread remains."""
    before = sandboxes_running()
    second = Sandbox(port=sandbox.port)
    with pytest.raises(OSError, match="in use"):
        second.start()

    assert sandboxes_running() == before
