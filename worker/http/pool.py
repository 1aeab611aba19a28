"""The pool of idle connections."""

from __future__ import annotations

from collections import deque

from .connection import MAX_IDLE_SECONDS, Connection


class Pool:
    """Idle connections. The most recently used one is acquired first, so unneeded ones expire."""

    def __init__(self) -> None:
        self._idle: deque[Connection] = deque()

    def acquire(self, now: float) -> Connection | None:
        """Return a connection that is ready for a call, or None."""
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
        """Close connections that were idle for too long."""
        idle = self._idle
        while idle and (not idle[0].is_open or now - idle[0].active_at >= MAX_IDLE_SECONDS):
            idle.popleft().close()

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()
