"""An executor that keeps working after a signal handler's exception interrupts `submit`.

Celery raises exceptions in signal handlers, at any point of the main thread. Within
`ThreadPoolExecutor.submit` or `queue.Queue.put`, such an exception can leave a lock acquired
forever, so that the next call never returns. `queue.SimpleQueue` has no such lock.
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
    """Runs functions on daemon threads, in the order of submission.

    Args:
        thread_count: the number of threads, which are all started immediately.
        name: the prefix of the threads' names.
    """

    def __init__(self, thread_count: int, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread_count = thread_count
        for number in range(thread_count):
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True).start()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit `fn`. If this call is interrupted, `fn` is either submitted or not."""
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the threads when they are idle. This never waits for them, even if `wait` is true."""
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
                except BaseException as error:  # noqa: BLE001 - raised by `Future.result`
                    future.set_exception(error)
                else:
                    future.set_result(result)
            # Release the references of the task before the wait for the next one.
            del task, future, call
