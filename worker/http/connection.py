"""A connection to the API. It has at most one call at a time."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import Any

from .reply import CallFailed, Reply
from .reply_reader import ReplyReader

#: Maximum idle time of a connection before it is used again. Many servers close idle connections
#: after about this time. The outcome of a POST on a closing connection would be unknown.
MAX_IDLE_SECONDS = 15.0

OnEnd = Callable[[Reply | CallFailed], None]


class Connection(asyncio.Protocol):
    """Sends a request and reads its reply. It never sends a request twice.

    Attributes:
        is_open: whether the connection may be used.
        active_at: when it last sent a request or received data (monotonic clock, seconds).
    """

    def __init__(self) -> None:
        self.is_open = False
        self.active_at = time.monotonic()
        self._transport: Any = None
        self._reader = ReplyReader()
        self._on_end: OnEnd | None = None
        self._poll: select.poll | None = None
        self._is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        if self._is_closed:
            self.close()
            return
        self.is_open = True
        self._poll = select.poll()
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

    def is_reusable(self, now: float) -> bool:
        """Return whether another call may use this idle connection."""
        return now - self.active_at < MAX_IDLE_SECONDS and self.is_quiet()

    def is_quiet(self) -> bool:
        """Return whether the connection is open and has no unread data.

        The event loop does not run between dispatches. Unread data is then either the end of the
        connection or an unexpected reply.
        """
        return self.is_open and self._poll is not None and not self._poll.poll(0)

    def exchange(self, request: bytes, on_end: OnEnd) -> None:
        """Send a request. The connection must be open and idle.

        The event loop calls `on_end` once. If the connection is still open, another call may use
        it.
        """
        self.active_at = time.monotonic()
        self._reader.begin()
        self._on_end = on_end
        # Write head and body together, so that they fit into one packet.
        self._transport.write(request)

    def give_up(self, kind: str, detail: str) -> None:
        """End the current call. Ignore the rest of the reply."""
        self._end(self._reader.stop(kind, detail))

    def close(self) -> None:
        """Close immediately, without waiting for the peer."""
        self.is_open = False
        if not self._is_closed:
            self._is_closed = True
            self._poll = None
            self._reader.close()
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._on_end is None:
            # Unexpected data must not become the reply to the next request.
            self.close()
            return
        self.active_at = time.monotonic()
        ending = self._reader.feed(data)
        if ending is not None:
            self._end(ending)

    def eof_received(self) -> None:
        if self._on_end is not None:
            self._end(self._reader.end_of_stream())
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._on_end is not None and exc is None:
            self._end(self._reader.end_of_stream())
        elif self._on_end is not None:
            self._end(self._reader.stop("connection_lost", type(exc).__name__))
        self.close()

    def _end(self, ending: Reply | CallFailed) -> None:
        on_end, self._on_end = self._on_end, None
        if not self._reader.may_be_kept or self._transport.get_write_buffer_size():
            # If data is still to be sent, the server replied before it had the whole request.
            self.close()
        if on_end is not None:
            on_end(ending)
