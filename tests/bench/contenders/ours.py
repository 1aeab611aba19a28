"""The calls of this project's users. The worker is part of this project."""

from __future__ import annotations

from typing import Any

from harasocial_dispatch.producer import enqueue, enqueue_many

__all__ = ["enqueue", "enqueue_batch"]


def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    enqueue_many(messages)
