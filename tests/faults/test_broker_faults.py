"""Doorbells wiped, doubled and dropped: they carry no job, so only delay can come of it."""

from __future__ import annotations

import threading
import time

import pytest
import redis
from account import settle
from harasocial_dispatch.ledger import DISPATCH_TASK, Doorbell, queue_name
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from stage import StartWorker, body, eventually, wait_until_ended

JOBS = 600


class SilentDoorbell(Doorbell):
    """One that never reaches the broker."""

    def ring(self) -> bool:
        return False


class DoubledDoorbell(Doorbell):
    """One that always rings twice, and once more for nothing."""

    def ring(self) -> bool:
        return super().ring() and super().ring() and super().ring()


def test_dropped_doorbells_cost_seconds_and_nothing_else(
    settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 1 without a single doorbell from the producer: the sweep rings, within 5 seconds."""
    start_worker()
    producer = Producer(settings, doorbell=SilentDoorbell(settings))

    began = time.monotonic()
    ids = [producer.enqueue(body(metadata=f"job {i}")) for i in range(20)]
    wait_until_ended(producer, ids)

    assert time.monotonic() - began < 5
    settle(producer, sandbox, ids).check(kills_excuse_doubles=False)


def test_doubled_doorbells_double_nothing(
    settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 4 with three doorbells for each one, and two workers to answer them."""
    start_worker()
    start_worker()
    producer = Producer(settings, doorbell=DoubledDoorbell(settings))

    ids = [producer.enqueue(body(metadata=f"job {i}")) for i in range(JOBS)]

    account = settle(producer, sandbox, ids)
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == JOBS


def test_a_wiped_broker_loses_nothing(
    settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 1 while every key of Celery's is deleted, again and again."""
    # given workers under load
    sandbox.latency_seconds = 0.05
    start_worker(IN_FLIGHT=4)
    start_worker(IN_FLIGHT=4)
    producer = Producer(settings)
    client = redis.Redis.from_url(settings.redis_url)
    over = threading.Event()

    def wipe() -> None:
        while not over.wait(0.02):
            client.delete(queue_name(settings), "unacked", "unacked_index", "unacked_mutex")
            for key in client.scan_iter("_kombu*"):
                client.delete(key)

    wiper = threading.Thread(target=wipe)
    wiper.start()

    # when jobs come in meanwhile
    try:
        ids = []
        for i in range(JOBS):
            ids.append(producer.enqueue(body(metadata=f"job {i}")))
            time.sleep(0.002)
    finally:
        over.set()
        wiper.join()

    # then all are sent once, and the last within seconds of the last wipe
    began = time.monotonic()
    account = settle(producer, sandbox, ids)
    assert time.monotonic() - began < 10
    account.check(kills_excuse_doubles=False)
    assert {record.state for record in account.records.values()} == {State.SENT}
    assert account.posts.total() == JOBS


@pytest.mark.parametrize("message", [b"not JSON", b"{}", b'{"headers": {}, "body": 5}'])
def test_a_message_that_is_no_doorbell_stops_nothing(
    message: bytes,
    settings: Settings,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
) -> None:
    """Other hands put rubbish into the broker's queue: the next job is sent all the same."""
    worker = start_worker()
    client = redis.Redis.from_url(settings.redis_url)
    client.lpush(queue_name(settings), message)

    eventually(lambda: client.llen(queue_name(settings)) == 0, what="the taking of it")
    wait_until_ended(producer, [producer.enqueue(body())])

    assert sandbox.totals().posts == 1
    assert worker.process is not None
    assert worker.process.poll() is None
    assert DISPATCH_TASK in worker.log()
