"""Threads that stay usable when a signal handler's exception interrupts whoever hands them work.

Celery raises exceptions in signal handlers, wherever the main thread happens to be. In the middle
of `ThreadPoolExecutor.submit`, or of `queue.Queue.put`, they can leave a lock taken for good, so
that the next call never returns. `queue.SimpleQueue` has no lock that an exception leaves taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]


class InterruptibleExecutor(Executor):
    """Runs functions on a few daemon threads, in the order in which they were submitted.

    Args:
        thread_count: threads, all started at once.
        name: what the threads are named after.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread_count = thread_count
        for number in range(thread_count):
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn` called. If this is interrupted, it was submitted wholly or not at all."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the threads once they are idle. Never waits for them, whatever `wait` is."""
        while cancel_futures:
            try:
                task = self._tasks.get_nowait()
            except Empty:
                break
            if task is not None:
                task[0].cancel()
        for _ in range(self._thread_count):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001 - raised to whoever waits for the result
                    future.set_exception(error)
                else:
                    future.set_result(result)
            # Or what it holds lives on until the next task comes.
            del task, future, call
