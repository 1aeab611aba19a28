"""What tests run in processes of their own: clients that enqueue."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from harasocial_dispatch.producer import IdempotencyConflict, Producer
from harasocial_dispatch.schemas import Settings

#: Forks from a process that has one thread, unlike that of the tests, and the producer's modules:
#: a fresh interpreter for each of 50 clients would take a minute to start.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["harasocial_dispatch.producer"])


def race(
    settings: Settings, body: dict[str, Any], key: str, start: Barrier, answer: Connection
) -> None:
    """Enqueue once, at the same time as others; send back the metadata, and the id or conflict."""
    producer = Producer(settings)
    start.wait()
    try:
        result: str | IdempotencyConflict = producer.enqueue(body, idempotency_key=key)
    except IdempotencyConflict as conflict:
        result = conflict
    answer.send((body["metadata"], result))


def enqueue_until_killed(
    settings: Settings, body: dict[str, Any], name: str, answer: Connection
) -> None:
    """Enqueue again and again, and tell each id."""
    producer = Producer(settings)
    for i in range(10_000):
        answer.send(producer.enqueue({**body, "metadata": f"{name}-{i}"}))
