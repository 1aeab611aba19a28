"""Faults during enqueue: concurrent calls with one key, killed clients, Redis down or full."""

from __future__ import annotations

import contextlib
import random
import time

import pytest
import redis
from harasocial_dispatch.producer import (
    EnqueueUnknown,
    IdempotencyConflict,
    Producer,
    QueueUnavailable,
)
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.accounting import settle
from support.client_processes import enqueue_until_killed, race
from support.forked import processes
from support.harness import (
    DEADLINE_SECONDS,
    StartWorker,
    body,
    eventually,
    kill,
    wait_until_ended,
)

RACERS, CLIENTS = 50, 60


def test_fifty_processes_with_one_idempotency_key_make_one_job(
    settings: Settings, producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 3: fifty processes use one key and two bodies at the same time; one message is sent.

    Every process with the stored body gets the id. Every other process gets a conflict.
    """
    start_worker()
    start = processes.Barrier(RACERS)
    ours, theirs = processes.Pipe()
    racers = []
    for i in range(RACERS):
        message = body(metadata=f"order {i % 2}")
        work = (settings, message, "order-1001", start, theirs)
        racers.append(processes.Process(target=race, args=work))
    for racer in racers:
        racer.start()
    answers = [ours.recv() for _ in racers]
    for racer in racers:
        racer.join()

    ids = {result for _, result in answers if isinstance(result, str)}
    assert len(ids) == 1
    (job_id,) = ids
    wait_until_ended(producer, ids)
    assert sandbox.totals().posts == 1
    won = producer.get_job(job_id).job["metadata"]
    for metadata, result in answers:
        if metadata == won:
            assert result == job_id
        else:
            assert isinstance(result, IdempotencyConflict)
            assert (result.job_id, result.fields) == (job_id, ["metadata"])
    assert producer.enqueue(body(metadata=won), idempotency_key="order-1001") == job_id


def test_a_client_killed_at_any_moment_leaves_no_job_or_one_that_is_sent(
    settings: Settings,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
    chance: random.Random,
) -> None:
    """Promise 1: every job with a returned id is sent, and so are jobs whose id was lost."""
    start_worker()
    known: list[str] = []
    for number in range(CLIENTS):
        ours, theirs = processes.Pipe()
        work = (settings, body(), str(number), theirs)
        client = processes.Process(target=enqueue_until_killed, args=work)
        client.start()
        assert ours.poll(DEADLINE_SECONDS), "the first id"
        time.sleep(chance.uniform(0, 0.03))
        assert client.pid is not None
        kill(client.pid)
        client.join()
        theirs.close()
        with contextlib.suppress(EOFError):
            while True:
                known.append(ours.recv())

    # Jobs of killed clients, whose ids were not received, are in the ledger too.
    waiting = (State.QUEUED, State.SENDING, State.RETRYING, State.SCHEDULED)
    eventually(lambda: not any(producer.count_states()[state] for state in waiting))
    stored = [record.job_id for record in producer.find_jobs(limit=100_000)]
    assert set(known) <= set(stored)
    assert len(known) > CLIENTS
    account = settle(producer, sandbox, stored)
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == len(stored)


def test_enqueue_raises_if_redis_is_down_or_full(
    own_valkey: EmbeddedValkey,
) -> None:
    """Promise 2: if it raises, there is no job. It raises within two seconds."""
    producer = Producer(Settings(redis_url=own_valkey.url))
    client = redis.Redis.from_url(own_valkey.url)

    client.config_set("maxmemory", 1)
    with pytest.raises(QueueUnavailable, match="no memory left") as full:
        producer.enqueue(body())
    client.config_set("maxmemory", 0)
    own_valkey.kill()
    began = time.monotonic()
    with pytest.raises(QueueUnavailable, match="nothing was enqueued") as down:
        producer.enqueue(body())
    assert time.monotonic() - began < 2
    own_valkey.restart()

    for raised in (full, down):
        assert not isinstance(raised.value, EnqueueUnknown)
    assert producer.find_jobs() == []
    assert len(producer.enqueue(body())) == 32


@pytest.mark.parametrize("is_stored", [True, False])
def test_enqueue_is_unknown_if_redis_hangs_and_can_be_repeated(
    own_valkey: EmbeddedValkey, is_stored: bool
) -> None:
    """Promise 2: the error for a lost reply is EnqueueUnknown. The same key makes one job."""
    producer = Producer(Settings(redis_url=own_valkey.url))
    earlier = [producer.enqueue(body())]
    if not is_stored:
        # The resumed server then refuses the command.
        redis.Redis.from_url(own_valkey.url).script_flush()
    own_valkey.pause()
    began = time.monotonic()
    with pytest.raises(EnqueueUnknown, match="same idempotency key") as raised:
        producer.enqueue(body(), idempotency_key="order-1001")
    assert time.monotonic() - began < 2
    own_valkey.resume()

    job_id = producer.enqueue(body(), idempotency_key="order-1001")

    assert {record.job_id for record in producer.find_jobs()} == {*earlier, job_id}
    assert (raised.value.job_ids == [job_id]) is is_stored


def test_a_broken_connection_is_retried_without_a_duplicate(
    own_valkey: EmbeddedValkey,
) -> None:
    """Promises 1 and 3: with broken connections, each enqueue makes one job or raises."""
    producer = Producer(Settings(redis_url=own_valkey.url))
    cutter = redis.Redis.from_url(own_valkey.url)
    returned, refused, unknown = [], 0, set()
    for i in range(300):
        if i % 3 == 0:
            cutter.client_kill_filter(_type="normal", skipme=True)
        try:
            returned.append(producer.enqueue(body(metadata=f"job {i}")))
        except EnqueueUnknown as error:
            unknown |= set(error.job_ids)
        except QueueUnavailable:
            refused += 1

    stored = {record.job_id for record in producer.find_jobs(limit=1000)}
    assert set(returned) <= stored
    assert stored <= set(returned) | unknown
    assert len(returned) + refused + len(unknown) == 300
    assert len(returned) > 200
