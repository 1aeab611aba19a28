"""Deleted, duplicate and lost doorbells: they carry no job, so they only cause delay."""

from __future__ import annotations

import base64
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.broker import DISPATCH_TASK, Doorbell, queue_name
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.accounting import settle
from support.flower_harness import LOGIN, Flower
from support.harness import StartWorker, body, environment, eventually, wait_until_ended
from support.processes import PROGRAMS, run_program

JOBS = 600


class SilentDoorbell(Doorbell):
    """A doorbell that never reaches the broker."""

    def ring(self) -> bool:
        return False


class DoubledDoorbell(Doorbell):
    """A doorbell that always rings two additional times."""

    def ring(self) -> bool:
        return super().ring() and super().ring() and super().ring()


def test_lost_doorbells_only_cause_a_delay_of_seconds(
    settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 1 without any doorbell from the producer: the sweep rings within 5 seconds."""
    start_worker()
    producer = Producer(settings, doorbell=SilentDoorbell(settings))

    ids = [producer.enqueue(body(metadata=f"job {i}")) for i in range(20)]
    records = wait_until_ended(producer, ids)

    # By the clock of Redis.
    assert records[0].enqueued_at is not None
    ended_at = max(record.finished_at for record in records if record.finished_at)
    assert (ended_at - records[0].enqueued_at).total_seconds() < 5
    settle(producer, sandbox, ids).check(kills_excuse_doubles=False)


def test_duplicate_doorbells_send_nothing_twice(
    settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 4 with three doorbells instead of one, and two workers."""
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
    """Promise 1 while all keys of Celery are deleted repeatedly."""
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

    # when jobs are enqueued meanwhile
    try:
        ids = []
        for i in range(JOBS):
            ids.append(producer.enqueue(body(metadata=f"job {i}")))
            time.sleep(0.002)
    finally:
        over.set()
        wiper.join()

    # then all are sent once, the last one within seconds after the last deletion
    began = time.monotonic()
    account = settle(producer, sandbox, ids)
    assert time.monotonic() - began < 10
    account.check(kills_excuse_doubles=False)
    assert {record.state for record in account.records.values()} == {State.SENT}
    assert account.posts.total() == JOBS


def wrapped(**changes: Any) -> bytes:
    """Return a doorbell as Celery sends it, with the given changes."""
    message = {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": DISPATCH_TASK, "id": "1234", "lang": "py"},
        "properties": {"body_encoding": "base64", "delivery_tag": "1", "delivery_info": {}},
        **changes,
    }
    return json.dumps(message).encode()


#: Invalid messages for the queue of doorbells.
RUBBISH = {
    "not JSON": b"not JSON",
    "not text": b"\xff\xfe\x00",
    "empty object": b"{}",
    "list": b"[]",
    "null": b"null",
    "number": b"5",
    "body of a wrong type": b'{"headers": {}, "body": 5}',
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "long number": b"1" * 100_000,
    "Python type": b'{"__type__": "uuid", "__value__": {}}',
    "no properties": wrapped(properties=None),
    "no delivery tag": wrapped(properties={"body_encoding": "base64"}),
    "headers are a list": wrapped(headers=[]),
    "task is a list": wrapped(headers={"task": []}),
    "no id": wrapped(headers={"task": DISPATCH_TASK}),
    "unknown task": wrapped(headers={"task": "secret-task", "id": "1"}),
    "bad base64": wrapped(body="%"),
    "unknown encoding": wrapped(properties={"body_encoding": "rot13", "delivery_tag": "1"}),
    "unknown content": wrapped(**{"content-type": "application/secret"}),
    "compressed": wrapped(headers={"task": DISPATCH_TASK, "id": "1", "compression": "zlib"}),
    "limits": wrapped(headers={"task": DISPATCH_TASK, "id": "1", "timelimit": "secret"}),
    "huge": wrapped(body="x" * 20_000_000),
}
#: Invalid messages for control commands and for events.
BAD_BROADCASTS = {
    **RUBBISH,
    "command of a list": wrapped(body=base64.b64encode(b"[1]").decode(), headers={}),
    "no command": wrapped(body=base64.b64encode(b"7").decode(), headers={}),
    "wrong reply_to": wrapped(
        body=base64.b64encode(b'{"method": "ping", "reply_to": 5}').decode(), headers={}
    ),
    "wrong clock": wrapped(
        body=base64.b64encode(b'{"method": "ping"}').decode(), headers={"clock": "secret"}
    ),
}


def test_invalid_broker_messages_stop_nothing(
    settings: Settings, producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Another client writes to the broker's queue and channels. The next job is still sent."""
    worker = start_worker("--concurrency", "1")
    client = redis.Redis.from_url(settings.redis_url)
    channel = f"/0.{settings.namespace}.control.pidbox"

    for name, message in RUBBISH.items():
        client.lpush(queue_name(settings), message)
        eventually(lambda: client.llen(queue_name(settings)) == 0, what=f"the taking of: {name}")
    for message in BAD_BROADCASTS.values():
        assert client.publish(channel, message) == 1
    (record,) = wait_until_ended(producer, [producer.enqueue(body())])

    assert record.state is State.SENT
    control = SeparateCelery("test", settings).control
    eventually(lambda: control.ping(timeout=2), what="a reply of the worker")
    lines = [line for line in worker.log().splitlines() if "was dropped" in line]
    # Not all messages are dropped: only the id of a doorbell is used, so some errors have no
    # effect.
    assert len(lines) >= len(RUBBISH) + len(BAD_BROADCASTS) - 10
    assert "secret" not in worker.log()
    assert "Traceback" not in worker.log()
    assert "onnection to broker lost" not in worker.log()
    assert worker.terminate() == 0


def test_flower_continues_after_invalid_events(settings: Settings, tmp_path: Path) -> None:
    """It shows the following events, and has not lost its connection."""
    env = environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=":".join(LOGIN))
    flower = Flower(env, tmp_path)
    client = redis.Redis.from_url(settings.redis_url)
    channel = f"/0.{settings.namespace}.events/task.multi"
    try:
        flower.start()
        eventually(lambda: client.publish(channel, b"[]"), what="Flower's subscription")
        for message in BAD_BROADCASTS.values():
            assert client.publish(channel, message) == 1
        app = SeparateCelery("test", settings)
        with app.events.default_dispatcher(hostname="w@h") as dispatcher:
            dispatcher.send("task-received", uuid="5678", name="a good one")
        eventually(lambda: flower.get("/api/task/info/5678").ok, what="the good event")
        assert "Failed to capture events" not in flower.log()
    finally:
        flower.stop()


@pytest.mark.parametrize("command", ["celery", "harasocial-dispatch"])
def test_a_worker_that_crashes_ends_with_an_error(
    command: str, settings: Settings, tmp_path: Path
) -> None:
    """A supervisor can then restart it. After a requested stop, the status is 0."""
    (tmp_path / "crashing.py").write_text(
        "from celery.worker.consumer import Consumer\n"
        "def crash(*_, **__): raise RuntimeError('a fault in a library')\n"
        "Consumer.on_ready = crash\n"
    )
    ended = run_program(
        *(*PROGRAMS[command], "worker", "--concurrency", "1", "--include", "crashing"),
        env=environment(settings, "http://127.0.0.1:9"),
        cwd=tmp_path,
    )
    assert "a fault in a library" in ended.stderr
    assert ended.returncode == 1
