"""The shutdown flag, which stops pumps from claiming.

Celery does not notify its prefork children of a warm shutdown. It waits for the end of their tasks.
A byte of memory that is shared over fork notifies the pump, so that this wait is short.
"""

from __future__ import annotations

import mmap
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_flag = mmap.mmap(-1, 1)
#: Whether a SIGTERM to this process is deferred until the end of its dispatch.
_terminated = threading.Event()


def request() -> None:
    """Request that every pump of this worker stops. Safe in a signal handler."""
    _flag[0] = 1


def requested() -> bool:
    """Return whether a stop was requested, so that pumps must not claim."""
    return _flag[0] != 0 or _terminated.is_set()


def reset() -> None:
    """Clear the request, for a process that starts another worker, such as a test."""
    _flag[0] = 0


@contextmanager
def sigterm_deferred() -> Iterator[None]:
    """Defer SIGTERM to the end of the block. systemd sends it to child processes too.

    In a child process, Celery's handler raises at any point, such as between a claim and its calls.
    After the signal, `requested` returns True, so that the block ends soon.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals interrupt only the main thread.
        yield
        return
    handler = signal.signal(signal.SIGTERM, lambda *_: _terminated.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if _terminated.is_set():
            _terminated.clear()
            signal.raise_signal(signal.SIGTERM)
