"""Makes calls: many at once, on one event loop that runs only while somebody waits for them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import traceback
from collections.abc import Callable
from typing import Any

from .connection import Connection, OnEnd
from .connector import ConnectingFailed, Connector
from .endpoint import Endpoint
from .pool import Pool
from .reply import CallFailed, Reply

logger = logging.getLogger(__name__)

#: How often deadlines are looked at (seconds).
WATCH_EVERY_SECONDS = 0.05


class Client:
    """Makes calls to one endpoint, and keeps connections for later ones.

    For one thread at a time, except for `call_soon`. Not to be shared over a fork. Neither the
    thread's own event loop nor signal handlers are touched.

    Args:
        connect_timeout_seconds: for each step of making a connection.
        read_timeout_seconds: between two pieces of a reply.
    """

    def __init__(
        self, endpoint: Endpoint, *, connect_timeout_seconds: float, read_timeout_seconds: float
    ) -> None:
        self._read_timeout_seconds = read_timeout_seconds
        self._connector = Connector(endpoint, connect_timeout_seconds)
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
            request: as `Endpoint.request` returns it.
            deadline: for the whole call, on the monotonic clock (seconds).
            start_by: latest time to begin to send the request (likewise). If there is a connection
                only later, the call fails as `not_started`; the connection is kept for others.
            on_end: called once with how the call ended: within `wait`, or at once if it cannot be
                made.
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
        """Let the calls proceed for so long, or until `wake` is called.

        Raises:
            Exception: what a callback, or a signal handler within one, raised.
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
        """Let `wait` return. For callbacks, which run in its thread."""
        self._loop.stop()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run `callback` within `wait`, soon. For other threads."""
        self._loop.call_soon_threadsafe(callback)

    def settle(self) -> None:
        """Finish closing what is to be closed; for when no call is under way for a while."""
        self._watched_at = 0.0
        self._watch(time.monotonic())
        if self._connecting:
            # Canceled, and soon done; not if a signal handler's exception came in between.
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
        except ConnectingFailed as error:
            call.end(CallFailed("connection_failed", str(error)))
            return
        if call.is_over:
            # Python's wait_for may lose a cancellation that comes together with its result.
            self._pool.release(connection)
        else:
            call.send(connection)

    def _watch(self, now: float) -> None:
        """Cut off the calls that are late. Done here, not by timers: a call would cost two."""
        if now - self._watched_at < WATCH_EVERY_SECONDS:
            return
        self._watched_at = now
        heard_before = now - self._read_timeout_seconds
        for call in [call for call in self._calls if call.is_late(now, heard_before)]:
            call.cut_off("the call's deadline passed")
        self._pool.prune(now)

    def _keep_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep for `wait` what a callback raised: asyncio would only log it.

        What asyncio itself raised concerns one connection, whose call ends at its deadline at the
        latest. (Python 3.11 raises TypeError if TLS within TLS is reset during its handshake.)
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
        """Forget a call that has ended; keep its connection if another may use it."""
        self._calls.discard(call)
        if connection is not None and connection.is_open:
            self._pool.release(connection)


def _raised_in(error: BaseException) -> str:
    """Return the name of the module that raised `error`."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__"))


class _Call:
    """One POST under way: it waits for a connection or for the reply."""

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
        """Send the request, now that there is a connection, unless it is too late to begin."""
        self.connecting = None
        self._connection = connection
        if time.monotonic() > self._start_by:
            self.end(CallFailed("not_started", "there was no connection in time"))
            return
        connection.exchange(self._request, self.end)

    def is_late(self, now: float, heard_before: float) -> bool:
        """Return whether the deadline passed, or the server was silent since `heard_before`."""
        connection = self._connection
        return now >= self._deadline or (
            connection is not None and connection.heard_at <= heard_before
        )

    def cut_off(self, reason: str) -> None:
        """End the call at once."""
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
