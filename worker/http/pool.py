"""The connections that wait for their next call."""

from __future__ import annotations

from collections import deque

from .connection import MAX_IDLE_SECONDS, Connection


class Pool:
    """Idle connections, the one used last on top, so that those not needed grow old and go."""

    def __init__(self) -> None:
        self._idle: deque[Connection] = deque()

    def acquire(self, now: float) -> Connection | None:
        """Take a connection that may carry a call, if there is one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable(now):
                return connection
            connection.close()
        return None

    def release(self, connection: Connection) -> None:
        """Keep a connection for a later call."""
        self._idle.append(connection)

    def prune(self, now: float) -> None:
        """Close those that have been idle for too long."""
        idle = self._idle
        while idle and (not idle[0].is_open or now - idle[0].heard_at >= MAX_IDLE_SECONDS):
            idle.popleft().close()

    def close(self) -> None:
        """Close them all."""
        while self._idle:
            self._idle.pop().close()
