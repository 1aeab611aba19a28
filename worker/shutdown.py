"""The word that a warm shutdown has begun, from Celery's main process to its children.

Celery tells its prefork children nothing of a warm shutdown: it waits until their tasks end. One
byte of memory shared over the fork tells the pump to claim no more, so that the wait is short.
"""

from __future__ import annotations

import mmap

_flag = mmap.mmap(-1, 1)


def request() -> None:
    """Ask every pump of this worker to stop. Safe in a signal handler."""
    _flag[0] = 1


def requested() -> bool:
    """Return whether pumps should stop claiming."""
    return _flag[0] != 0


def reset() -> None:
    """Forget the request: for a process that starts a worker anew, such as a test."""
    _flag[0] = 0
