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
results: RedisAsyncResultBackend[dict[str, Any]] = RedisAsyncResultBackend(
    REDIS_URL, prefix_str="result", result_ex_time=KEPT_SECONDS, serializer=ORJSONSerializer()
)
broker = (
    # Without a limit, it would spend most of its time on opening and closing connections.
    RedisStreamBroker(REDIS_URL, max_connection_pool_size=2 * CALLS_PER_PROCESS, consumer_id="0")
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
