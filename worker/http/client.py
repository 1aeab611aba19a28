"""Make many calls at once, on an event loop that runs only within `Client.wait`."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

from ...schemas import Settings
from .connection import Connection, OnEnd
from .connector import ConnectFailed, Connector
from .endpoint import Endpoint
from .pool import Pool
from .reply import CallFailed, Reply

logger = logging.getLogger(__name__)

#: How often deadlines are checked.
WATCH_EVERY_SECONDS = 0.05


class Client:
    """Makes calls to one endpoint, and keeps the connections for later calls.

    Only `call_soon` is thread-safe. A client must not be used after a fork. It does not change the
    thread's current event loop or signal handlers.

    Args:
        settings: `connect_timeout_seconds`, for each step of connecting, and
            `read_timeout_seconds`, between two received parts of a reply, are used.
    """

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self._read_timeout_seconds = settings.read_timeout_seconds
        self._connector = Connector(endpoint, settings.connect_timeout_seconds)
        self._pool = Pool()
        self._calls: set[_Call] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._watched_at = 0.0
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._keep_error)

    def post(
        self, request: bytes, deadline: float, on_end: OnEnd, *, start_by: float = math.inf
    ) -> None:
        """Start a call. Does not block.

        Args:
            request: the bytes from `Endpoint.request`.
            deadline: of the whole call, on the monotonic clock (seconds).
            start_by: the latest time to begin to send the request, on the same clock. If no
                connection is available by then, the call fails with `not_started`, and a later
                connection is kept for other calls.
            on_end: called once with the end of the call: within `wait`, or immediately if the
                deadline has passed.
        """
        now = time.monotonic()
        if now >= deadline or self._loop.is_closed():
            on_end(CallFailed("connection_failed", "no connection before the call's deadline"))
            return
        call = _Call(self, request, deadline, on_end, start_by)
        self._calls.add(call)
        connection = self._pool.acquire(now)
        if connection is not None:
            call.send(connection)
            return
        task = self._loop.create_task(self._connect(call))
        call.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def wait(self, seconds: float) -> None:
        """Run the event loop for this time, or until `wake` is called.

        Raises:
            Exception: the exception of a callback, or of a signal handler within a callback.
        """
        self._watch(time.monotonic())
        timer = self._loop.call_later(min(seconds, WATCH_EVERY_SECONDS), self._loop.stop)
        try:
            self._loop.run_forever()
        finally:
            timer.cancel()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wake(self) -> None:
        """Make `wait` return. Call it from callbacks, which run in the same thread."""
        self._loop.stop()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run `callback` soon, within `wait`. Thread-safe."""
        self._loop.call_soon_threadsafe(callback)

    def settle(self) -> None:
        """Complete the closing of connections. Call it when no call is in flight for some time."""
        self._watched_at = 0.0
        self._watch(time.monotonic())
        if self._connecting:
            # The tasks are canceled and end soon, unless a signal handler's exception interrupts
            # this.
            self._loop.run_until_complete(asyncio.wait([*self._connecting], timeout=1.0))
            self._connecting.clear()
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def close(self) -> None:
        """End all calls and close all connections."""
        if self._loop.is_closed():
            return
        for call in list(self._calls):
            call.cut_off("the client was closed")
        self._pool.close()
        self._connector.close()
        self.settle()
        self._loop.close()

    async def _connect(self, call: _Call) -> None:
        try:
            connection = await self._connector.connect()
        except ConnectFailed as error:
            call.end(CallFailed("connection_failed", str(error)))
            return
        if call.is_over:
            # asyncio.wait_for may lose a cancellation that coincides with its result.
            self._pool.release(connection)
        else:
            call.send(connection)

    def _watch(self, now: float) -> None:
        """End the calls that are late. This replaces two timers for each call."""
        if now - self._watched_at < WATCH_EVERY_SECONDS:
            return
        self._watched_at = now
        silent_since = now - self._read_timeout_seconds
        for call in [call for call in self._calls if call.is_late(now, silent_since)]:
            call.cut_off("the call's deadline passed")
        self._pool.prune(now)

    def _keep_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep the exception of a callback, so that `wait` raises it. asyncio would only log it.

        An exception of asyncio itself affects one connection, whose call ends by its deadline. For
        example, Python 3.11 raises TypeError if TLS within TLS is reset during its handshake.
        """
        error = context.get("exception")
        if error is None or _raised_in(error).startswith("asyncio"):
            logger.warning(
                "asyncio: %s (%s)",
                context["message"],
                type(error).__name__,
                extra={"action": "connection_fault"},
            )
            return
        self._error = error
        self._loop.stop()

    def release(self, call: _Call, connection: Connection | None) -> None:
        """Remove a call that has ended. Keep its connection if another call may use it."""
        self._calls.discard(call)
        if connection is not None and connection.is_open:
            self._pool.release(connection)


def _raised_in(error: BaseException) -> str:
    """Return the name of the module that raised `error`."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__"))


class _Call:
    """A POST in flight: it waits for a connection or for the reply."""

    __slots__ = (
        "_client",
        "_connection",
        "_deadline",
        "_on_end",
        "_request",
        "_start_by",
        "connecting",
    )

    def __init__(
        self, client: Client, request: bytes, deadline: float, on_end: OnEnd, start_by: float
    ) -> None:
        self._client = client
        self._request = request
        self._deadline = deadline
        self._start_by = start_by
        self._on_end: OnEnd | None = on_end
        self._connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._on_end is None

    def send(self, connection: Connection) -> None:
        """Send the request on `connection`, unless it is too late to begin."""
        self.connecting = None
        self._connection = connection
        if time.monotonic() > self._start_by:
            self.end(CallFailed("not_started", "there was no connection in time"))
            return
        connection.exchange(self._request, self.end)

    def is_late(self, now: float, silent_since: float) -> bool:
        """Return whether the deadline passed, or the server was silent since `silent_since`."""
        connection = self._connection
        return now >= self._deadline or (
            connection is not None and connection.active_at <= silent_since
        )

    def cut_off(self, reason: str) -> None:
        """End the call immediately."""
        if self._connection is not None:
            self._connection.give_up("timeout", reason)
            return
        if self.connecting is not None:
            self.connecting.cancel()
        self.end(CallFailed("connection_failed", f"no connection: {reason}"))

    def end(self, ending: Reply | CallFailed) -> None:
        """Report how the call ended."""
        on_end, self._on_end = self._on_end, None
        if on_end is None:
            return
        self.connecting = None
        connection, self._connection = self._connection, None
        self._client.release(self, connection)
        on_end(ending)
