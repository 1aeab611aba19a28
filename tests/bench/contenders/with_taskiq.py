"""taskiq on a Redis stream, which it recommends over a list because a stream acknowledges.

taskiq also recommends orjson and uvloop. To enqueue many jobs, all calls are awaited together.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from taskiq import TaskiqEvents, TaskiqState
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

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
#: The default of redis-py 8, 5 seconds, ends a worker that is busy for longer.
NO_TIMEOUT: dict[str, Any] = {"socket_timeout": None}
results: RedisAsyncResultBackend[dict[str, Any]] = RedisAsyncResultBackend(
    REDIS_URL,
    prefix_str="result",
    result_ex_time=KEPT_SECONDS,
    serializer=ORJSONSerializer(),
    **NO_TIMEOUT,
)
broker = (
    RedisStreamBroker(
        REDIS_URL,
        # Without a limit, it would spend most of its time on opening and closing connections.
        max_connection_pool_size=2 * CALLS_PER_PROCESS,
        consumer_id="0",
        **NO_TIMEOUT,
    )
    .with_result_backend(results)
    .with_serializer(ORJSONSerializer())
)
state = TaskiqState()


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _start(_: TaskiqState) -> None:
    state.session = session_of(aiohttp)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def _stop(_: TaskiqState) -> None:
    await state.session.close()


@broker.task(task_name="send")
async def send(message: dict[str, Any]) -> dict[str, Any]:
    async with state.session.post(URL, data=body_of(message), headers=HEADERS) as reply:
        return accepted(reply.status, await reply.read())


async def connect() -> None:
    await broker.startup()


async def enqueue(message: dict[str, Any]) -> None:
    await send.kiq(message)


async def enqueue_batch(messages: list[dict[str, Any]]) -> None:
    await asyncio.gather(*map(enqueue, messages))
