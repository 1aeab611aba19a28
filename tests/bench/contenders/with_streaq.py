"""streaq: Redis streams and Lua functions; `enqueue_many` sends one pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from streaq import Worker

from .call import (
    CALLS_PER_PROCESS,
    HEADERS,
    KEPT_SECONDS,
    REDIS_URL,
    URL,
    accepted,
    body_of,
    session_of,
)


@asynccontextmanager
async def _session() -> AsyncIterator[aiohttp.ClientSession]:
    async with session_of(aiohttp) as session:
        yield session


worker: Worker[aiohttp.ClientSession] = Worker(
    redis_url=REDIS_URL,
    concurrency=CALLS_PER_PROCESS,
    lifespan=_session,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=KEPT_SECONDS, silent=True)
async def send(message: dict[str, Any]) -> dict[str, Any]:
    session = worker.context
    async with session.post(URL, data=body_of(message), headers=HEADERS) as reply:
        return accepted(reply.status, await reply.read())


async def connect() -> None:
    await worker.__aenter__()


async def enqueue(message: dict[str, Any]) -> None:
    await send.enqueue(message)


async def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    await worker.enqueue_many([send.enqueue(message) for message in messages])
