"""The pace of a page where messages arrive: real workers, and connections that open slowly."""

from __future__ import annotations

import socket
import time

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import State
from support.harness import StartWorker, body, eventually, wait_until_ended
from support.relay import Relay
from support.scripted_server import CERTIFICATE, tls_context

#: Connections open together at each multiple of this time (seconds).
OPENING_SECONDS = 1.6


class SlowToOpen(Relay):
    """Forwards the data of new connections only at intervals, so that they open together."""

    def _serve(self, client: socket.socket) -> None:
        time.sleep(OPENING_SECONDS - time.monotonic() % OPENING_SECONDS)
        super()._serve(client)


def most_in_a_second(arrivals: list[float]) -> int:
    """Return the maximum number of arrivals in a window of one second."""
    return max(sum(begin <= time < begin + 1 for time in arrivals) for begin in arrivals)


def arrivals_of(sandbox: Sandbox) -> list[float]:
    return sorted(time for job in sandbox.jobs() for time in job.arrived_at_monotonic)


def test_by_default_no_second_has_more_than_forty_messages_of_a_page(
    producer: Producer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 13: over several workers, whose connections open slowly."""
    count = 150
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with Sandbox(tls=tls_context()) as sandbox, SlowToOpen(sandbox.port) as relay:
        url = sandbox.url.replace(f":{sandbox.port}", f":{relay.port}")
        # None: the default.
        for _ in range(2):
            start_worker("--concurrency", "2", PAGE_RATE=None, API_URL=url)

        ids = producer.enqueue_many(body(metadata=f"{i}") for i in range(count)).accepted

        records = wait_until_ended(producer, ids)
        arrivals = arrivals_of(sandbox)
    assert {record.state for record in records} == {State.SENT}
    assert {record.attempt_count for record in records} == {1}, "released unsent, none is spent"
    assert len(arrivals) == count
    assert most_in_a_second(arrivals) <= 40
    assert relay.connections > 4


def test_a_new_rate_holds_within_a_second_without_a_restart(
    producer: Producer, ledger: Ledger, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """It applies to all workers; a paused page sends nothing."""
    for _ in range(2):
        start_worker("--concurrency", "1")
    page = "1111"
    producer.set_rate(page, 5, 1)
    ids = producer.enqueue_many(body(metadata=f"{i}", page_id=page) for i in range(220)).accepted
    eventually(lambda: sandbox.totals().posts >= 5)
    assert sandbox.totals().posts <= 30

    producer.set_rate(page, 40, 10)
    eventually(lambda: sandbox.totals().posts >= 60)
    assert most_in_a_second(arrivals_of(sandbox)) <= 50
    producer.pause_page(page, reason="a test")
    eventually(lambda: not ledger.reader.count_states()[State.SENDING])
    paused_at = sandbox.totals().posts
    time.sleep(0.5)
    assert sandbox.totals().posts == paused_at

    producer.resume_page(page)
    producer.set_rate(page, 0)
    wait_until_ended(producer, ids)
    assert ledger.reader.pauses() == []


def test_after_a_restriction_only_what_was_in_flight_arrives(
    producer: Producer, ledger: Ledger, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 14: the rest of a campaign waits, without attempts; other pages are sent."""
    restricted, well = "1111", "2222"
    sandbox.latency_seconds = 0.05
    start_worker("--concurrency", "2", PAGE_RATE=None)
    start_worker("--concurrency", "2", PAGE_RATE=None)
    payloads = ["__hrf_f_1"] * 60 + ["sandbox:code:368"] * 200
    producer.enqueue_many(
        body(payload, page_id=restricted, metadata=f"{i}") for i, payload in enumerate(payloads)
    )
    ids = producer.enqueue_many(body(metadata=f"{i}", page_id=well) for i in range(90)).accepted

    def refused() -> int:
        jobs = sandbox.jobs()
        return sum(job.posts for job in jobs if job.payload_id == "sandbox:code:368")

    eventually(refused, what="the restriction")
    eventually(ledger.reader.pauses, what="the pause")
    in_flight = refused()
    wait_until_ended(producer, ids)

    # At 30 per second, two or three calls are in flight in the 50 ms that a call takes.
    assert refused() <= max(in_flight, 10)
    (pause,) = ledger.reader.pauses()
    assert (pause.page_id, pause.reason, pause.error_code) == (restricted, "restricted", "368")
    assert pause.waiting == 200
    waiting = producer.find_jobs(page_id=restricted, state=State.QUEUED)
    assert {record.attempt_count for record in waiting} == {0}
