"""Redis restarted, killed, hanging, full or read-only: workers recover by themselves."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.ledger import Claim, Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import QueueUnavailable, Settings, State
from support.accounting import settle
from support.harness import WorkerProcess, body, environment, eventually, unique_settings

JOBS = 1500

#: Every write is on disk before the reply, so Redis keeps its data even if it is killed.
DURABLE: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
def server() -> Iterator[EmbeddedValkey]:
    """A server that a test may damage."""
    with EmbeddedValkey(**DURABLE) as made:
        yield made


@pytest.fixture
def own_settings(server: EmbeddedValkey) -> Settings:
    return unique_settings(server.url)


@pytest.fixture
def workers(
    own_settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> Iterator[list[WorkerProcess]]:
    """Two workers with slow calls. Their leases are longer than the outages of these tests."""
    sandbox.latency_seconds = 0.03
    times = {"LEASE_SECONDS": 30, "CALL_DEADLINE_SECONDS": 5, "IN_FLIGHT": 6}
    env = environment(own_settings, sandbox.url, **times)
    started = [WorkerProcess(env, tmp_path, "--concurrency", "2").start(wait=False) for _ in "12"]
    for worker in started:
        eventually(worker.is_ready, what="the worker's start")
    yield started
    for worker in started:
        worker.kill()


def restarted(server: EmbeddedValkey, chance: random.Random) -> None:
    """Kill and restart the server three times."""
    for _ in range(3):
        time.sleep(chance.uniform(0.1, 0.5))
        server.kill()
        server.restart()


def away_for_a_while(server: EmbeddedValkey, chance: random.Random) -> None:
    """Kill the server, and restart it after some seconds (FAULT_AWAY_SECONDS)."""
    time.sleep(chance.uniform(0.1, 0.5))
    server.kill()
    time.sleep(float(os.environ.get("FAULT_AWAY_SECONDS", "6")))
    server.restart()


def hanging_for_ten_seconds(server: EmbeddedValkey, chance: random.Random) -> None:
    """Pause the server: connections stay open without replies."""
    time.sleep(chance.uniform(0.1, 0.5))
    server.pause()
    time.sleep(10)
    server.resume()


def connections_cut_in_a_loop(server: EmbeddedValkey, chance: random.Random) -> None:
    """Repeatedly close the connections of all clients."""
    client = redis.Redis.from_url(server.url)
    for _ in range(60):
        with contextlib.suppress(redis.RedisError):
            client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(chance.uniform(0.01, 0.08))


def full(server: EmbeddedValkey, chance: random.Random) -> None:
    """Fill the memory, with noeviction: every write is refused."""
    client = redis.Redis.from_url(server.url)
    time.sleep(chance.uniform(0.1, 0.5))
    client.config_set("maxmemory", 1)
    time.sleep(3)
    client.config_set("maxmemory", 0)


def a_read_only_replica(server: EmbeddedValkey, chance: random.Random) -> None:
    """Make the server a replica: reads work, writes are refused."""
    client = redis.Redis.from_url(server.url)
    client.config_set("replica-serve-stale-data", "yes")
    time.sleep(chance.uniform(0.1, 0.5))
    client.replicaof("127.0.0.1", "1")
    time.sleep(3)
    client.replicaof("NO", "ONE")


FAULTS = [
    restarted,
    away_for_a_while,
    hanging_for_ten_seconds,
    connections_cut_in_a_loop,
    full,
    a_read_only_replica,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_workers_recover_by_themselves_after(
    fault: Callable[[EmbeddedValkey, random.Random], None],
    server: EmbeddedValkey,
    own_settings: Settings,
    workers: list[WorkerProcess],
    sandbox: Sandbox,
    chance: random.Random,
) -> None:
    """Promises 1, 4 and 6 during a fault of Redis: nothing is lost or sent twice.

    Calls that were in flight are recorded when Redis is back, because their claims are still valid.
    """
    # given workers under load
    producer = Producer(own_settings)
    ids = producer.enqueue_many(
        {
            **body(page_id=str(1000 + i % 20), metadata=f"job {i}"),
            "delivery": "at_most_once" if i % 10 == 0 else "at_least_once",
        }
        for i in range(JOBS)
    ).accepted
    eventually(lambda: sandbox.totals().posts > JOBS // 10, what="the load")

    # when the fault begins and ends
    fault(server, chance)
    over = time.monotonic()
    posts = sandbox.totals().posts
    eventually(lambda: sandbox.totals().posts > posts or posts == JOBS, what="the recovery")
    recovered = time.monotonic() - over

    # then everything is sent once
    account = settle(producer, sandbox, ids)
    print(f"{fault.__name__}: recovered in {recovered:.1f} s; {account}")  # noqa: T201 - figures
    account.check(kills_excuse_doubles=True)
    assert account.posts.total() == JOBS, "no worker died, so nothing is POSTed twice"
    assert {record.state for record in account.records.values()} == {State.SENT}
    assert all(worker.process.poll() is None for worker in workers)


def test_a_result_that_could_not_be_recorded_is_recorded_when_redis_is_back(
    server: EmbeddedValkey, own_settings: Settings, workers: list[WorkerProcess], sandbox: Sandbox
) -> None:
    """An outcome is kept during an outage."""
    producer = Producer(own_settings)
    sandbox.latency_seconds = 1.0
    job_id = producer.enqueue(body(metadata="kept"))
    eventually(lambda: sandbox.totals().posts == 1)

    server.kill()
    eventually(lambda: sandbox.totals().accepted == 1, what="the reply, with Redis away")
    time.sleep(1.5)
    server.restart()

    account = settle(producer, sandbox, [job_id])
    assert account.posts["kept"] == 1
    assert account.records["kept"].state is State.SENT
    assert account.records["kept"].attempt_count == 1


def test_a_claim_whose_reply_was_lost_is_released(
    server: EmbeddedValkey, own_settings: Settings
) -> None:
    """The process did not receive the claim. Its next claim releases the job without an attempt."""
    producer = Producer(own_settings)
    ledger = Ledger(own_settings, timeout_seconds=0.5)
    ledger.claim(1)  # loads the script, so that only the reply to the next claim is lost
    ids = [producer.enqueue(body(metadata=str(i))) for i in range(3)]
    server.pause()
    with pytest.raises(QueueUnavailable):
        ledger.claim(2)
    server.resume()
    # The server has received the lost claim before this command.
    assert redis.Redis.from_url(server.url).ping()

    claimed = eventually(lambda: _claimed(ledger))

    assert [claim.job_id for claim in claimed] == ids
    assert {claim.attempts_spent for claim in claimed} == {0}


def _claimed(ledger: Ledger) -> list[Claim]:
    try:
        return ledger.claim(3).claims
    except QueueUnavailable:
        return []
