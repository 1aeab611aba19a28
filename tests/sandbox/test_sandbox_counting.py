"""The sandbox's counts and records of received requests."""

from __future__ import annotations

import base64
import json
import time

import pytest
from harasocial_dispatch.sandbox import Sandbox
from support.exact_client import Client
from support.harness import eventually
from support.memory import peak_bytes


def test_jobs_are_identified_by_their_four_fields(client: Client) -> None:
    """A change of any of the four fields makes another job."""
    client.post()
    client.post()
    client.post(payload_id="other")
    client.post(recipient={"id": "2"})
    client.post(page_id="2")
    client.post(metadata=None)

    assert [job.posts for job in client.sandbox.jobs()] == [2, 1, 1, 1, 1]
    assert client.sandbox.totals().jobs == 5
    assert [job.page_id for job in client.sandbox.jobs(page_id="2")] == ["2"]
    assert len(client.sandbox.jobs(page_id="500725830264749", payload_id="payload")) == 3


def test_posts_and_accepted_replies_are_counted_separately(client: Client) -> None:
    """Every POST counts. An accepted reply is counted in addition."""
    for payload_id in ("sandbox:ok", "sandbox:drop", "sandbox:status:500", "sandbox:reset"):
        client.exchange(client.request(client.body(payload_id), connection="close"))

    totals = client.sandbox.totals()
    assert (totals.requests, totals.posts, totals.accepted, totals.jobs) == (4, 4, 1, 4)


def test_an_unread_post_is_a_request_but_not_a_post(client: Client) -> None:
    """`drop_before` simulates that the body was not read."""
    client.post("sandbox:drop_before")

    totals = client.sandbox.totals()
    assert (totals.requests, totals.posts, totals.jobs) == (1, 0, 0)


def test_each_post_has_its_arrival_time_on_both_clocks(client: Client) -> None:
    """The times are in order, between the request and the reply."""
    before, before_wall = time.monotonic(), time.time()
    client.post("sandbox:slow:0.05")
    client.post("sandbox:slow:0.05")
    after, after_wall = time.monotonic(), time.time()

    (job,) = client.sandbox.jobs()
    first, second = job.arrived_at_monotonic
    assert before <= first <= second - 0.04
    assert second <= after - 0.04
    assert before_wall - 0.1 <= job.arrived_at[0] <= job.arrived_at[1] <= after_wall + 0.1


def test_concurrent_requests_are_counted(client: Client) -> None:
    """The maximum number of requests in progress is recorded."""
    connections = [client.connect() for _ in range(6)]
    for number, connection in enumerate(connections):
        connection.sendall(client.request(client.body(f"sandbox:hang#{number}")))
    eventually(lambda: client.sandbox.totals().posts == 6)

    assert client.sandbox.totals().max_concurrent == 6
    for connection in connections:
        connection.close()
    client.post()
    assert client.sandbox.totals().max_concurrent >= 6


def test_raw_requests_are_kept_unchanged(client: Client) -> None:
    """Names, values, bytes and order are unchanged. The oldest requests are dropped."""
    content = json.dumps(client.body("\N{SNOWMAN}")).encode() + b"\r\n "
    head = (
        "POST /social/messages.json HTTP/1.1\r\nHOST: sandbox\r\nX-A: 1\r\nx-a:  two \r\n"
        f"content-LENGTH: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    client.exchange(head.encode() + content)

    (request,) = client.sandbox.requests()
    assert (request.method, request.path, request.body) == (
        "POST",
        "/social/messages.json",
        content,
    )
    assert request.headers == (
        ("HOST", "sandbox"),
        ("X-A", "1"),
        ("x-a", "two"),
        ("content-LENGTH", str(len(content))),
        ("Connection", "close"),
    )


def test_only_the_last_requests_are_kept() -> None:
    """`keep_requests` limits the raw requests, not the counts."""
    with Sandbox(keep_requests=2) as sandbox:
        client = Client(sandbox)
        for number in range(3):
            client.post(f"sandbox:ok#{number}")

        bodies = [json.loads(request.body) for request in sandbox.requests()]
        assert [body["message"]["payload_id"] for body in bodies] == [
            "sandbox:ok#1",
            "sandbox:ok#2",
        ]
        assert sandbox.totals().posts == 3


def test_counts_over_http_are_the_same(client: Client) -> None:
    """Another process gets the same numbers, and its requests are not counted."""
    client.post("sandbox:flaky:1")
    client.post("sandbox:flaky:1")

    received = client.control("GET", "received")
    (job,) = client.sandbox.jobs()
    assert received["jobs"] == [
        {
            "page_id": "500725830264749",
            "recipient_id": "2560816460648749",
            "payload_id": "sandbox:flaky:1",
            "metadata": "order 1001",
            "posts": 2,
            "accepted": 1,
            "arrived_at": list(job.arrived_at),
            "arrived_at_monotonic": list(job.arrived_at_monotonic),
        }
    ]
    assert received["totals"] == {
        "requests": 2,
        "posts": 2,
        "accepted": 1,
        "jobs": 1,
        "redirected": 0,
        "max_concurrent": 1,
    }


def test_requests_over_http_mask_the_token(client: Client) -> None:
    """Raw requests are available over HTTP, with masked tokens."""
    client.post("sandbox:ok")

    (request,) = client.control("GET", "requests")["requests"]
    assert base64.b64decode(request["body_base64"]) == client.sandbox.requests()[0].body
    assert request["body"] == client.sandbox.requests()[0].body.decode()
    assert ["authorization", "***"] in request["headers"]
    assert "sandbox-token" not in json.dumps(request)


@pytest.mark.parametrize("over_http", [False, True])
def test_a_reset_clears_all_counts(client: Client, over_http: bool) -> None:
    """The counts start from 0 again, including those that behaviors use."""
    client.post("sandbox:flaky:1")
    if over_http:
        client.control("POST", "reset")
    else:
        client.sandbox.reset()

    assert client.sandbox.jobs() == []
    assert client.sandbox.requests() == []
    totals = client.sandbox.totals()
    assert (totals.requests, totals.posts, totals.accepted) == (0, 0, 0)
    assert client.post("sandbox:flaky:1").status == 503


def test_a_reply_in_progress_during_a_reset_is_not_counted(client: Client) -> None:
    """An acceptance after the reset belongs to a deleted job."""
    with client.connect() as connection:
        connection.sendall(client.request(client.body("sandbox:slow:0.1")))
        eventually(lambda: client.sandbox.totals().posts == 1)
        client.sandbox.reset()
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")

    assert client.sandbox.totals().accepted == 0


def test_counts_are_available_after_the_stop() -> None:
    """Received data can be read after the server has stopped."""
    with Sandbox() as sandbox:
        Client(sandbox).post()

    assert sandbox.totals().accepted == 1
    assert len(sandbox.jobs()) == 1


def test_many_jobs_need_little_memory() -> None:
    """A received job needs much less than a kilobyte."""
    count = 5_000
    size = peak_bytes(
        f"journal = Journal(keep_requests=0)\nfor number in range({count}): journal.note_post("
        'Job("500725830264749", f"256081646064{number}", "__hrf" * 13, f"o{number}"))',
        imports="from harasocial_dispatch.sandbox.contract import Job\n"
        "from harasocial_dispatch.sandbox.journal import Journal",
    )
    assert size / count < 600
