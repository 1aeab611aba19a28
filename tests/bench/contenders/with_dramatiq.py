"""dramatiq on Redis, with stored results. It cannot enqueue many jobs in one call."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
import requests
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from .call import HEADERS, KEPT_SECONDS, REDIS_URL, TIMEOUT_SECONDS, URL, accepted, body_of

broker = RedisBroker(url=REDIS_URL)
# Keys with their own prefix can be counted.
results = RedisBackend(url=REDIS_URL, use_namespace_prefix_keys=True)
broker.add_middleware(Results(backend=results))
dramatiq.set_broker(broker)


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.trust_env = False


_per_thread = _PerThread()


@dramatiq.actor(store_results=True, result_ttl=KEPT_SECONDS * 1000)
def send(message: dict[str, Any]) -> dict[str, Any]:
    reply = _per_thread.session.post(
        URL, data=body_of(message), headers=HEADERS, timeout=TIMEOUT_SECONDS
    )
    return accepted(reply.status_code, reply.content)


def enqueue(message: dict[str, Any]) -> None:
    send.send(message)


def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    for message in messages:
        send.send(message)
