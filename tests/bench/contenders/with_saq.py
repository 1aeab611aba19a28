"""saq on Redis. To enqueue many jobs, all calls are awaited together."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from saq import Queue

from .call import (
    CALLS_PER_PROCESS,
    HEADERS,
    KEPT_SECONDS,
    REDIS_URL,
    URL,
    accepted,
    body_of,
    session_of,
    use_uvloop,
)

use_uvloop()
queue = Queue.from_url(REDIS_URL)


async def send(context: dict[str, Any], *, message: dict[str, Any]) -> dict[str, Any]:
    async with context["session"].post(URL, data=body_of(message), headers=HEADERS) as reply:
        return accepted(reply.status, await reply.read())


async def _start(context: dict[str, Any]) -> None:
    context["session"] = session_of(aiohttp)


async def _stop(context: dict[str, Any]) -> None:
    await context["session"].close()


settings = {
    "queue": queue,
    "functions": [send],
    "concurrency": CALLS_PER_PROCESS,
    "startup": _start,
    "shutdown": _stop,
}


async def enqueue(message: dict[str, Any]) -> None:
    await queue.enqueue("send", message=message, ttl=KEPT_SECONDS)


async def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    await asyncio.gather(*map(enqueue, messages))
