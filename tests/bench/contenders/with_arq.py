"""arq: one process, because two processes compete for the same entries of its sorted set.

arq polls, by default twice per second, which would limit throughput and latency. Here it polls 100
times per second, which costs little. To enqueue many jobs, all calls are awaited together.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings

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


async def send(context: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    async with context["session"].post(URL, data=body_of(message), headers=HEADERS) as reply:
        return accepted(reply.status, await reply.read())


async def _start(context: dict[str, Any]) -> None:
    context["session"] = session_of(aiohttp)


async def _stop(context: dict[str, Any]) -> None:
    await context["session"].close()


class WorkerSettings:
    """The settings for the command `arq`."""

    functions = (send,)
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
    on_startup = _start
    on_shutdown = _stop
    max_jobs = 2 * CALLS_PER_PROCESS
    poll_delay = 0.01
    keep_result = KEPT_SECONDS
    log_results = False


pool: ArqRedis


async def connect() -> None:
    global pool  # noqa: PLW0603 - created in the running event loop
    pool = await create_pool(WorkerSettings.redis_settings)


async def enqueue(message: dict[str, Any]) -> None:
    await pool.enqueue_job("send", message)


async def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    await asyncio.gather(*map(enqueue, messages))
