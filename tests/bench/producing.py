"""Enqueues as told, in a contender's own interpreter, and prints what it took as JSON.

python producing.py MODULE {one,batch,lone} COUNT
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

#: Jobs in one call of `enqueue_batch`.
BATCH_SIZE = 500
#: Enqueued before the clock runs: connections, first calls.
WARM_UP_JOBS = 10
#: A lone job comes this long (seconds) after the one before, at random: nothing is in step.
PAUSE_SECONDS = (0.25, 0.6)
PAGES = 20


def message(number: int) -> dict[str, Any]:
    """Return the documented body of one message; its metadata tells it from all others."""
    return {
        "messaging_type": "harasocial_facebook_payload_id",
        "recipient": {"id": str(2560816460648749 + number)},
        "message": {
            "payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
        },
        "page_id": str(500725830264749 + number % PAGES),
        "metadata": f"order {number}",
    }


async def main(module_name: str, what: str, count: int) -> dict[str, Any]:
    """Enqueue `count` jobs: `one` by one, by `batch`, or each `lone` on an idle system."""
    module = importlib.import_module(f"contenders.{module_name}")
    one, batch = _awaited(module.enqueue), _awaited(module.enqueue_batch)
    if hasattr(module, "connect"):
        await module.connect()
    for number in range(WARM_UP_JOBS):
        await one(message(-1 - number))
    if what == "lone":
        return {"enqueued": count + WARM_UP_JOBS, "called_at": await _lone(one, count)}
    messages = [message(number) for number in range(count)]
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "batch":
        calls = [
            await _timed(batch, messages[first : first + BATCH_SIZE])
            for first in range(0, count, BATCH_SIZE)
        ]
    else:
        calls = [await _timed(one, each) for each in messages]
    return {
        "enqueued": count + WARM_UP_JOBS,
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "call_seconds": calls,
    }


def _awaited(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    if inspect.iscoroutinefunction(function):
        return function

    async def call(argument: Any) -> None:
        function(argument)

    return call


async def _timed(call: Callable[[Any], Awaitable[Any]], argument: Any) -> float:
    began = time.perf_counter()
    await call(argument)
    return time.perf_counter() - began


async def _lone(one: Callable[[Any], Awaitable[Any]], count: int) -> list[float]:
    chance = random.Random(1)
    called_at = []
    for number in range(count):
        await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))
        called_at.append(time.monotonic())
        await one(message(number))
    return called_at


if __name__ == "__main__":
    figures = asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    sys.stdout.write(json.dumps(figures) + "\n")
