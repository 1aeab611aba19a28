"""The word that a shutdown has begun, to the pumps that should claim no more.

Celery tells its prefork children nothing of a warm shutdown: it waits until their tasks end. One
byte of memory shared over the fork tells the pump, so that the wait is short.
"""

from __future__ import annotations

import mmap
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_flag = mmap.mmap(-1, 1)
#: Set where a SIGTERM came to this process alone, and waits for the end of its dispatch.
_terminated = threading.Event()


def request() -> None:
    """Ask every pump of this worker to stop. Safe in a signal handler."""
    _flag[0] = 1


def requested() -> bool:
    """Return whether pumps should stop claiming."""
    return _flag[0] != 0 or _terminated.is_set()


def reset() -> None:
    """Forget the request: for a process that starts a worker anew, such as a test."""
    _flag[0] = 0


@contextmanager
def sigterm_deferred() -> Iterator[None]:
    """Have a SIGTERM, which systemd sends to children too, act at the end of the block.

    In a child, Celery's handler raises wherever the code just is, which may be between a claim and
    its calls. From the signal on, `requested` is true, so that the block ends soon.
    """
    if threading.current_thread() is not threading.main_thread():
        # Signals come to the main thread, where nothing is interrupted then.
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
