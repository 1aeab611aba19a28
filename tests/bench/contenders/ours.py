"""What this project's users call; the worker that sends comes with it."""

from __future__ import annotations

from typing import Any

from harasocial_dispatch.producer import enqueue, enqueue_many

__all__ = ["enqueue", "enqueue_batch"]


def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    enqueue_many(messages)
