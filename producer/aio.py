"""The producer for asyncio: the same functions as coroutines. They never block the event loop.

    from harasocial_dispatch.producer.aio import enqueue

    job_id = await enqueue(body, idempotency_key="order-1001-paid")

The functions are methods of one `AsyncProducer`. It is created from the environment when the first
function is imported. To use other settings, create an `AsyncProducer(settings)`.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial, update_wrapper
from itertools import islice
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from .. import producer
from ..schemas import QueueUnavailable, Settings
from .producer import Producer

P = ParamSpec("P")
T = TypeVar("T")

#: Maximum number of concurrent calls to Redis; each uses a thread.
MAX_THREADS = 32
#: How long (seconds) a call waits for a free thread. With the producer's timeouts, the total is
#: less than 2 seconds.
START_TIMEOUT_SECONDS = 0.5
#: Number of jobs that an iteration reads in one call.
_ITERATION_SIZE = 500


class CompletedCall(Exception):
    """The cause of an `asyncio.CancelledError` if the canceled call completed.

    Attributes:
        result: what the call returned, such as the id of the job that `enqueue` stored.
    """

    def __init__(self, result: Any) -> None:
        super().__init__(f"the await was canceled, but its call started and returned {result!r}")
        self.result = result


def _awaited(
    method: Callable[Concatenate[Producer, P], T],
) -> Callable[Concatenate[AsyncProducer, P], Coroutine[Any, Any, T]]:
    """Return the coroutine method of `AsyncProducer` for `method`."""
    stops = "stop" in inspect.signature(method).parameters

    async def call(self: AsyncProducer, /, *args: P.args, **options: P.kwargs) -> T:
        stop = threading.Event()
        if stops and options.get("stop") is None:
            options["stop"] = stop
        return await self._run(partial(method, self.producer, *args, **options), stop.set)

    update_wrapper(call, method)
    return call


def _iterated(
    method: Callable[Concatenate[Producer, P], Iterator[T]],
) -> Callable[Concatenate[AsyncProducer, P], AsyncIterator[T]]:
    """Return the asynchronous generator method of `AsyncProducer` for `method`."""

    async def iterate(
        self: AsyncProducer, /, *args: P.args, **options: P.kwargs
    ) -> AsyncIterator[T]:
        found = await self._run(partial(method, self.producer, *args, **options))
        while some := await self._run(lambda: list(islice(found, _ITERATION_SIZE))):
            for each in some:
                yield each

    update_wrapper(iterate, method)
    return iterate


class AsyncProducer:
    """A `Producer` for asyncio. Each call runs in a thread of a small pool.

        async with AsyncProducer() as producer:
            job_id = await producer.enqueue(body)

    A call raises the same errors as the producer's method. If no thread is free within half a
    second, because Redis hangs or there are too many calls, it raises `QueueUnavailable` and does
    nothing. The thread also reads iterables and calls `progress`.

    After a canceled await, it is always known what was stored. If the call has not started, it does
    nothing. Otherwise the await continues until the call ends (`enqueue_many` ends after the
    current batch). The `__cause__` of the `CancelledError` is then the call's error or a
    `CompletedCall`. On Python 3.10, code that awaits the canceled task from outside gets another
    `CancelledError`, whose `__context__` is this one.

    Args:
        settings: default: read from the environment.
        producer: replaces the producer created from `settings`; `close` closes it.

    Several event loops and threads may use it.
    """

    def __init__(
        self, settings: Settings | None = None, *, producer: Producer | None = None
    ) -> None:
        self.producer = producer or Producer(settings)
        self._threads: ThreadPoolExecutor | None = None
        self._pid = 0

    enqueue = _awaited(Producer.enqueue)
    enqueue_many = _awaited(Producer.enqueue_many)
    get_job = _awaited(Producer.get_job)
    find_job_id = _awaited(Producer.find_job_id)
    find_jobs = _awaited(Producer.find_jobs)
    iterate_failed = _iterated(Producer.iterate_failed)
    count_errors = _awaited(Producer.count_errors)
    count_states = _awaited(Producer.count_states)
    replay = _awaited(Producer.replay)
    replay_many = _awaited(Producer.replay_many)
    cancel = _awaited(Producer.cancel)
    cancel_many = _awaited(Producer.cancel_many)
    pause_page = _awaited(Producer.pause_page)
    resume_page = _awaited(Producer.resume_page)
    pause_all = _awaited(Producer.pause_all)
    resume_all = _awaited(Producer.resume_all)
    set_rate = _awaited(Producer.set_rate)
    find_pauses = _awaited(Producer.find_pauses)
    get_campaign = _awaited(Producer.get_campaign)
    find_campaigns = _awaited(Producer.find_campaigns)
    hold_campaign = _awaited(Producer.hold_campaign)
    release_campaign = _awaited(Producer.release_campaign)
    cancel_campaign = _awaited(Producer.cancel_campaign)

    async def close(self) -> None:
        """Close the connections to Redis, and stop the threads."""
        await self._run(self.producer.close)
        self._executor().shutdown(wait=False)
        self._threads = None

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[[], T], stop: Callable[[], object] = lambda: None) -> T:
        """Run `call` in a thread and return its result; `stop` ends it early."""
        in_context = partial(contextvars.copy_context().run, call)
        future: Future[T] = self._executor().submit(in_context)
        # A future can be canceled only until a thread starts it.
        timer = asyncio.get_running_loop().call_later(START_TIMEOUT_SECONDS, future.cancel)
        done = asyncio.wrap_future(future)
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError as canceled:
            if future.cancel():
                raise
            stop()
            await _end_of(done)
            raise canceled from (done.exception() or CompletedCall(done.result()))
        finally:
            timer.cancel()
        if done.cancelled():
            raise QueueUnavailable(
                f"no command was sent to Redis: {MAX_THREADS} calls are under way, and none ended "
                f"within {START_TIMEOUT_SECONDS:g} s; nothing was done"
            )
        return done.result()

    def _executor(self) -> ThreadPoolExecutor:
        # Threads do not exist in a forked process (gunicorn --preload).
        if self._threads is None or self._pid != os.getpid():
            self._threads = ThreadPoolExecutor(MAX_THREADS, "harasocial-producer")
            self._pid = os.getpid()
        return self._threads


async def _end_of(done: asyncio.Future[Any]) -> None:
    """Wait for the end of a call, even if the await is canceled."""
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            continue


@lru_cache(maxsize=1)
def _default() -> AsyncProducer:
    return AsyncProducer(producer=producer._default())


if TYPE_CHECKING:
    _typed = AsyncProducer()
    enqueue = _typed.enqueue
    enqueue_many = _typed.enqueue_many
    get_job = _typed.get_job
    find_jobs = _typed.find_jobs
    count_errors = _typed.count_errors
    replay = _typed.replay
    cancel = _typed.cancel
    cancel_many = _typed.cancel_many
    pause_page = _typed.pause_page
    resume_page = _typed.resume_page
    set_rate = _typed.set_rate
    get_campaign = _typed.get_campaign
    hold_campaign = _typed.hold_campaign
    release_campaign = _typed.release_campaign
    cancel_campaign = _typed.cancel_campaign
else:
    _FUNCTIONS = [name for name in producer.__all__ if hasattr(AsyncProducer, name)]

    def __getattr__(name: str) -> Any:
        # The environment is read when a function is first imported, not when the module is.
        if name in _FUNCTIONS:
            return getattr(_default(), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_FUNCTIONS})
