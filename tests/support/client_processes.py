"""Clients that enqueue, in separate processes."""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from typing import Any

from harasocial_dispatch.producer import IdempotencyConflict, Producer
from harasocial_dispatch.schemas import Settings


def race(
    settings: Settings, body: dict[str, Any], key: str, start: Barrier, answer: Connection
) -> None:
    """Enqueue once, at the same time as others. Send the metadata, and the id or the conflict."""
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
    """Enqueue repeatedly, and send each id."""
    producer = Producer(settings)
    for i in range(10_000):
        answer.send(producer.enqueue({**body, "metadata": f"{name}-{i}"}))
