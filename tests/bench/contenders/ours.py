"""This project: `enqueue` and `enqueue_many` of its producer; its worker is installed with it."""

from __future__ import annotations

from typing import Any

from harasocial_dispatch.producer import enqueue as enqueue
from harasocial_dispatch.producer import enqueue_many


def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    enqueue_many(messages)
