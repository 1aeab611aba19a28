"""What can be changed while the sandbox runs, and its start and stop."""

from __future__ import annotations

import gc
import threading
import time
from contextlib import suppress

import pytest
from harasocial_dispatch.sandbox import Sandbox


def test_fail_with_storms_over_every_post(client):
    """Every POST gets the status, right or wrong, until it is switched off; all are counted."""
    client.sandbox.fail_with(503)
    for payload_id in ("sandbox:ok", "sandbox:drop", "sandbox:unheard-of"):
        assert client.post(payload_id).status == 503
    assert client.hear(client.request(b"?", connection="close")).status == 503

    client.sandbox.fail_with(None)
    assert client.post("sandbox:ok").status == 200
    totals = client.sandbox.totals()
    assert (totals.posts, totals.accepted) == (5, 1)


def test_latency_delays_every_post(client):
    """Every reply to a POST waits; the sandbox's own paths do not."""
    client.sandbox.latency_seconds = 0.15

    started = time.monotonic()
    assert client.control("GET", "health") == {"healthy": True}
    assert time.monotonic() - started < 0.15
    started = time.monotonic()
    assert client.post("sandbox:status:500").status == 500
    assert time.monotonic() - started >= 0.15


def test_a_replaced_token_is_right_at_once(client):
    """A page whose token was refused is served again after the tokens were replaced."""
    client.sandbox.tokens = {"*": "new"}
    assert client.post().status == 401

    client.sandbox.tokens = {"*": "new", "500725830264749": "sandbox-token"}
    assert client.post().status == 200


def test_tokens_are_a_copy(client):
    """Changing the mapping afterwards changes nothing."""
    tokens = {"*": "sandbox-token"}
    client.sandbox.tokens = tokens
    tokens.clear()

    assert client.post().status == 200


def test_down_refuses_connections_and_up_takes_them_on_the_same_port(client):
    """Down is a closed port; what was received and the port stay."""
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


def test_down_in_the_moment_of_a_connection_leaves_nobody_waiting(client):
    """A connection that is just being taken is closed too, at every try."""
    for _ in range(30):
        with client.connect() as connection:
            client.sandbox.down()
            with suppress(ConnectionResetError):
                assert connection.recv(1) == b""
        client.sandbox.up()


def test_down_lets_replies_under_way_finish(client, wait_until):
    """A request that was taken is answered, then its connection closes."""
    with client.connect() as connection:
        connection.sendall(client.request(client.body("sandbox:slow:0.1")))
        wait_until(lambda: client.sandbox.totals().posts == 1)
        client.sandbox.down()
        connection.settimeout(5)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
        assert reply.startswith(b"HTTP/1.1 200 OK")


def test_switches_over_http(client):
    """A sandbox in another process is switched by a JSON object of what is to change."""
    reply = client.control("POST", "switch", {"fail_with": 502, "tokens": {"*": "another"}})
    assert reply == {"fail_with": 502, "latency_seconds": 0.0, "tokens": {"*": "***"}}
    assert client.post().status == 502

    client.control("POST", "switch", {"fail_with": None})
    assert client.post().status == 401
    assert client.control("POST", "switch", {"latency_seconds": 0.01})["fail_with"] is None
    assert client.sandbox.latency_seconds == 0.01


@pytest.mark.parametrize(
    ("changes", "complaint"),
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
def test_a_wrong_switch_is_named_and_changes_nothing(client, changes, complaint):
    """One wrong value, and all stays as it was."""
    reply = client.control("POST", "switch", changes)

    assert complaint in reply["error"]
    assert client.post().status == 200


def test_wrong_switches_raise_in_python_too():
    """The same rules hold in the constructor and in the properties."""
    with pytest.raises(ValueError, match="tokens must map"):
        Sandbox(tokens={"1": ""})
    sandbox = Sandbox()
    with pytest.raises(ValueError, match="latency_seconds must be"):
        sandbox.latency_seconds = float("nan")
    with pytest.raises(ValueError, match="fail_with must be"):
        sandbox.fail_with(700)


def test_unknown_paths_of_the_sandbox_are_explained(client):
    """A wrong path under /_sandbox/ lists the right ones; a wrong method names the right one."""
    assert "/_sandbox/received" in client.control("GET", "recieved")["error"]
    assert client.control("GET", "reset") == {"error": "use POST"}
    assert client.control("POST", "switch", None)["error"]


def sandboxes_running() -> int:
    """Count the sandboxes of this process; other tests may have left one for all of theirs."""
    return sum(thread.name == "harasocial-sandbox" for thread in threading.enumerate())


def test_it_starts_once_stops_twice_and_starts_again(client_of):
    """A sandbox starts once, stops twice, and starts again on its port with its counts."""
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
    client_of(sandbox).post()
    sandbox.stop()
    sandbox.stop()

    with sandbox:
        assert sandbox.url == url
        client_of(sandbox).post()
    assert sandbox.totals().accepted == 2
    assert sandboxes_running() == before


def test_stop_ends_whatever_is_under_way(client_of, wait_until, caplog):
    """Hanging, dripping and endless replies do not hold up the stop, nor outlive it."""
    with Sandbox() as sandbox:
        client = client_of(sandbox)
        connections = []
        for payload_id in ("sandbox:hang", "sandbox:drip:9", "sandbox:endless"):
            connections.append(client.connect())
            connections[-1].sendall(client.request(client.body(payload_id)))
        wait_until(lambda: sandbox.totals().posts == 3)
        started = time.monotonic()

    assert time.monotonic() - started < 1
    gc.collect()  # a task that was forgotten complains now
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    for connection in connections:
        connection.close()


def test_a_port_in_use_is_an_error_at_the_start(sandbox):
    """The error of the system comes through, and nothing is left running."""
    before = sandboxes_running()
    second = Sandbox(port=sandbox.port)
    with pytest.raises(OSError, match="in use"):
        second.start()

    assert sandboxes_running() == before
