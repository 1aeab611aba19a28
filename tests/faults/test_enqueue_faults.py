"""Enqueueing: many at once with one key, clients killed at any moment, Redis down or full."""

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
from support.client_processes import enqueue_until_killed, processes, race
from support.harness import StartWorker, body, eventually, kill, wait_until_ended

RACERS, CLIENTS = 50, 60


def test_one_idempotency_key_makes_one_job_from_fifty_processes_at_once(
    settings: Settings, producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 3: fifty processes race with one key and two bodies; one message is sent.

    Every process with the body that won gets the id, every other one a conflict with that job.
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
    """Promise 1: an id that was returned is a job that is sent; a job nobody knows of is too."""
    start_worker()
    known: list[str] = []
    for number in range(CLIENTS):
        ours, theirs = processes.Pipe()
        work = (settings, body(), str(number), theirs)
        client = processes.Process(target=enqueue_until_killed, args=work)
        client.start()
        assert ours.poll(20), "the first id"
        time.sleep(chance.uniform(0, 0.03))
        assert client.pid is not None
        kill(client.pid)
        client.join()
        theirs.close()
        with contextlib.suppress(EOFError):
            while True:
                known.append(ours.recv())

    # Jobs of killed clients, whose ids nobody heard, are in the ledger like all others.
    waiting = (State.QUEUED, State.SENDING, State.RETRYING, State.SCHEDULED)
    eventually(lambda: not any(producer.count_states()[state] for state in waiting))
    stored = [record.job_id for record in producer.find_jobs(limit=100_000)]
    assert set(known) <= set(stored)
    assert len(known) > CLIENTS
    account = settle(producer, sandbox, stored)
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == len(stored)


def test_with_redis_down_or_full_nothing_is_enqueued_and_it_says_so(
    own_valkey: EmbeddedValkey,
) -> None:
    """Promise 2: it raised, so there is no job; and it took less than two seconds."""
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
def test_with_redis_hanging_it_says_unknown_and_the_key_may_be_tried_again(
    own_valkey: EmbeddedValkey, is_stored: bool
) -> None:
    """Promise 2: the reply was lost, so it says so; the same key afterwards makes one job."""
    producer = Producer(Settings(redis_url=own_valkey.url))
    earlier = [producer.enqueue(body())]
    if not is_stored:
        # Then the server cannot do what it reads when it goes on.
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


def test_a_broken_connection_is_tried_once_more_without_doubling(
    own_valkey: EmbeddedValkey,
) -> None:
    """Promises 1 and 3: connections cut all the time; each enqueue makes one job or says why."""
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
