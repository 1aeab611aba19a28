"""rq: its worker forks for each job. Its SimpleWorker, which does not fork, is also measured."""

from __future__ import annotations

from typing import Any

import redis
import requests
from rq import Queue

from .call import HEADERS, KEPT_SECONDS, REDIS_URL, TIMEOUT_SECONDS, URL, accepted, body_of

queue = Queue(connection=redis.Redis.from_url(REDIS_URL))

# No connection is opened before the fork, so each process has its own.
session = requests.Session()
session.trust_env = False


def send(message: dict[str, Any]) -> dict[str, Any]:
    reply = session.post(URL, data=body_of(message), headers=HEADERS, timeout=TIMEOUT_SECONDS)
    return accepted(reply.status_code, reply.content)


def enqueue(message: dict[str, Any]) -> None:
    queue.enqueue(send, message, result_ttl=KEPT_SECONDS)


def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    queue.enqueue_many(
        [Queue.prepare_data(send, (message,), result_ttl=KEPT_SECONDS) for message in messages]
    )
