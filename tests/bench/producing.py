"""Enqueue jobs in the interpreter of a library, and print the figures as JSON.

python producing.py MODULE {one,batch,lone} COUNT PAGES
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

#: Number of jobs in one call of `enqueue_batch`.
BATCH_SIZE = 500
#: Number of jobs that are enqueued before the measurement, for connections and first calls.
WARM_UP_JOBS = 10
#: Range of the random delay between single jobs, so that they are not synchronized with polls.
PAUSE_SECONDS = (0.25, 0.6)


def message(number: int, pages: int = 1) -> dict[str, Any]:
    """Return the documented body of a message. Its metadata identifies it."""
    return {
        "messaging_type": "harasocial_facebook_payload_id",
        "recipient": {"id": str(2560816460648749 + number)},
        "message": {
            "payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
        },
        "page_id": str(500725830264749 + number % pages),
        "metadata": f"order {number}",
    }


async def main(module_name: str, what: str, count: int, pages: int) -> dict[str, Any]:
    """Enqueue `count` jobs: one by one, in batches, or each on an idle system."""
    module = importlib.import_module(f"contenders.{module_name}")
    one, batch = _awaited(module.enqueue), _awaited(module.enqueue_batch)
    if hasattr(module, "connect"):
        await module.connect()
    for number in range(WARM_UP_JOBS):
        await one(message(-1 - number, pages))
    enqueued = count + WARM_UP_JOBS
    if what == "lone":
        return {"enqueued": enqueued, "called_at": await _lone(one, count, pages)}
    clock = Clock()
    # Do not keep all messages in memory.
    for first in range(0, count, BATCH_SIZE):
        numbers = range(first, min(first + BATCH_SIZE, count))
        messages = [message(number, pages) for number in numbers]
        with clock:
            if what == "batch":
                await batch(messages)
            else:
                for each in messages:
                    began = time.perf_counter()
                    await one(each)
                    clock.call_seconds.append(time.perf_counter() - began)
    return {
        "enqueued": enqueued,
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "call_seconds": clock.call_seconds,
    }


class Clock:
    """Adds up the time and the CPU time (of all threads) of `with` blocks."""

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.call_seconds: list[float] = []

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        seconds, cpu_seconds = self._began
        self.seconds += time.perf_counter() - seconds
        self.cpu_seconds += time.process_time() - cpu_seconds


def _awaited(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    if inspect.iscoroutinefunction(function):
        return function

    async def call(argument: Any) -> None:
        function(argument)

    return call


async def _lone(one: Callable[[Any], Awaitable[Any]], count: int, pages: int) -> list[float]:
    chance = random.Random(1)
    called_at = []
    for number in range(count):
        await asyncio.sleep(chance.uniform(*PAUSE_SECONDS))
        called_at.append(time.monotonic())
        await one(message(number, pages))
    return called_at


if __name__ == "__main__":
    figures = asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    sys.stdout.write(json.dumps(figures) + "\n")
