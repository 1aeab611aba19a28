"""A Redis that accepts connections but does not reply: workers recover, and stop on request.

Connections from before the outage stay silent forever, as behind a firewall that lost its state.
Nothing signals to the worker that they are dead.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, WorkerProcess, body, eventually, wait_until_ended
from support.relay import Relay

OUTAGE_SECONDS = 10.0
#: Every connection is replaced within the broker's timeout and two health checks.
RECOVERY_SECONDS = 15.0
#: A stop takes at most the timeouts of a few connections, one after the other.
STOP_SECONDS = 25.0
#: With outcomes to record, a worker waits longer for Redis: the time in docker/.env.example.
STOP_AT_WORK_SECONDS = 45.0


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    """A separate Valkey that tests can pause."""
    with EmbeddedValkey() as running:
        yield running


@pytest.fixture
def relay(server: EmbeddedValkey) -> Iterator[Relay]:
    with Relay(server.port) as running:
        yield running


@pytest.fixture
def settings(server: EmbeddedValkey, settings: Settings) -> Settings:
    """The producer's settings: it connects to the server directly."""
    return replace(settings, redis_url=server.url)


Outage = Callable[[EmbeddedValkey, Relay], AbstractContextManager[None]]


@contextmanager
def held(server: EmbeddedValkey, relay: Relay) -> Iterator[None]:
    """Connections are accepted without replies, and open connections stay dead."""
    relay.hold()
    yield
    relay.release()


@contextmanager
def paused(server: EmbeddedValkey, relay: Relay) -> Iterator[None]:
    """The server is paused, and replies to everything afterwards."""
    server.pause()
    yield
    server.resume()


@contextmanager
def slow(server: EmbeddedValkey, relay: Relay) -> Iterator[None]:
    """Every reply takes longer than any timeout."""
    relay.delay_seconds = 8.0
    yield
    relay.delay_seconds = 0.0


@contextmanager
def dripping(server: EmbeddedValkey, relay: Relay) -> Iterator[None]:
    """Replies arrive byte by byte, each byte within any timeout."""
    relay.drip_seconds = 0.5
    yield
    relay.drip_seconds = 0.0


OUTAGES = [held, paused, slow, dripping]


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_worker_sends_again_after(
    outage: Outage,
    server: EmbeddedValkey,
    relay: Relay,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
) -> None:
    """Promise 11: the worker recovers within seconds, even if it was idle before the outage."""
    worker = start_worker(REDIS_URL=f"redis://127.0.0.1:{relay.port}/0")
    wait_until_ended(producer, [producer.enqueue(body())])

    with outage(server, relay):
        time.sleep(OUTAGE_SECONDS)
    ids = [producer.enqueue(body(metadata=f"job {i}")) for i in range(20)]
    records = wait_until_ended(producer, ids, seconds=RECOVERY_SECONDS)

    assert {record.state for record in records} == {State.SENT}
    assert sandbox.totals().posts == 21
    # Celery's own connections work again too.
    eventually(lambda: "onnected to redis" in worker.log())
    assert worker.terminate() == 0


@pytest.mark.parametrize(
    ("moment", "outage"),
    [
        ("at start-up", held),
        ("at start-up", slow),
        ("idle", paused),
        ("at work", held),
        ("at work", paused),
    ],
)
def test_a_worker_stops_on_request_during(
    outage: Outage,
    moment: str,
    server: EmbeddedValkey,
    relay: Relay,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
) -> None:
    """Promise 11: SIGTERM ends a worker in every state of its broker."""
    url = f"redis://127.0.0.1:{relay.port}/0"
    if moment == "at start-up":
        with outage(server, relay):
            worker = start_worker(wait=False, REDIS_URL=url)
            eventually(lambda: "[queues]" in worker.log() and relay.connections, what="its start")
            time.sleep(1.0)
            _stop(worker, STOP_SECONDS)
        return
    worker = start_worker("--concurrency", "1", REDIS_URL=url)
    if moment == "at work":
        sandbox.latency_seconds = 0.5
        producer.enqueue_many(body(metadata=f"job {i}") for i in range(400))
        eventually(lambda: sandbox.totals().posts > 10, what="work")
    with outage(server, relay):
        time.sleep(2.0)
        _stop(worker, STOP_AT_WORK_SECONDS if moment == "at work" else STOP_SECONDS)


def test_idle_workers_stop_on_request_during_outages(
    server: EmbeddedValkey, start_worker: StartWorker
) -> None:
    """As above, with a relay for each worker. The workers stop at the same time, to save time."""
    with ExitStack() as stack:
        relays = [stack.enter_context(Relay(server.port)) for _ in range(3)]
        workers = [
            start_worker("--concurrency", "1", REDIS_URL=f"redis://127.0.0.1:{relay.port}/0")
            for relay in relays
        ]
        for outage, relay in zip((held, slow, dripping), relays, strict=True):
            stack.enter_context(outage(server, relay))
        time.sleep(2.0)
        stops = stack.enter_context(ThreadPoolExecutor())
        assert list(stops.map(lambda worker: _stop(worker, STOP_SECONDS), workers)) == [None] * 3


def _stop(worker: WorkerProcess, seconds: float) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(seconds) == 0
