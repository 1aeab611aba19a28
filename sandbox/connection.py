"""One client's connection: cuts bytes into requests and sends each reply at its pace.

An ordinary reply is written at once, without a task: that is what makes the sandbox fast enough
to be measured against. Only a reply that waits, drips, never ends or is very large gets a task.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import cast

from .contract import Job
from .endpoint import Endpoint
from .wire import (
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    Ending,
    Head,
    RefusedRequestError,
    Reply,
    make_reply,
    parse_head,
)

#: Bytes of a reply up to which it is written in one go.
_WRITE_BYTES = 256 * 1024
#: Seconds a client has to read the refusal of a request that was not read whole.
_UNREAD_SECONDS = 1.0


class Connection(asyncio.Protocol):
    """Serves requests in order until one side closes; pipelined ones wait for their turn."""

    def __init__(
        self, endpoint: Endpoint, connections: set[Connection], is_down: Callable[[], bool]
    ) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._is_down = is_down
        self._received = b""
        self._continued = False
        self._deaf = False
        self._retiring = False
        self._sending: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        if self._is_down():  # it was taken just before, and is known only now
            self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the reply that is being sent: nobody is there to read it."""
        self._connections.discard(self)
        self._deaf = True
        if self._sending is not None:
            self._sending.cancel()

    def pause_writing(self) -> None:
        """Hold back: the client reads more slowly than it is written to."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Write on."""
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Serve what has come whole, unless a reply is still being sent."""
        if self._deaf:
            return
        self._received += data
        if self._sending is None:
            self._serve()
        elif len(self._received) > MAX_HEAD_BYTES + MAX_BODY_BYTES:
            self.abort()  # it sends on and on without waiting for replies

    # What the server calls.

    def retire(self) -> None:
        """Close now if idle, else once the reply that is being sent is out."""
        self._retiring = True
        if self._sending is None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self._transport.abort()

    # From bytes to requests.

    def _serve(self) -> None:
        """Answer every request that has come whole, until a reply takes time."""
        while self._sending is None and not self._deaf:
            try:
                request = self._next_request()
            except RefusedRequestError as refused:
                text = f"{refused}\n".encode()
                reply = make_reply(refused.status, text, ending=Ending.CLOSE_UNREAD)
                self._transport.write(reply.head + reply.body)
                self._end(reply.ending)
                return
            if request is None:
                return
            self._answer(*request)

    def _next_request(self) -> tuple[Head, bytes] | None:
        """Take the next whole request from what was received, if there is one."""
        end = self._received.find(b"\r\n\r\n")
        if (len(self._received) if end < 0 else end) > MAX_HEAD_BYTES:
            raise RefusedRequestError(f"the headers are larger than {MAX_HEAD_BYTES} bytes", 431)
        if end < 0:
            return None
        head = parse_head(self._received[:end])
        whole = end + 4 + head.body_bytes
        if len(self._received) < whole:
            if not self._continued and "100-continue" in head.fields.get("expect", "").lower():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._continued = True
            return None
        body = self._received[end + 4 : whole]
        self._received = self._received[whole:]
        self._continued = False
        return head, body

    # From requests to replies.

    def _answer(self, head: Head, body: bytes) -> None:
        reply, job = self._endpoint.answer(head, body)
        at_once = not (
            reply.wait_seconds
            or reply.head_seconds_per_byte
            or reply.body_seconds_per_byte
            or reply.endless
            or len(reply.body) > _WRITE_BYTES
        )
        if at_once:
            if reply.accepted:
                self._endpoint.accept(job)
            self._transport.write(reply.head if head.method == "HEAD" else reply.head + reply.body)
            self._endpoint.finish(head)
            self._end_reply(reply, head)
        else:
            self._sending = asyncio.get_running_loop().create_task(self._send(reply, job))
            # A task that is cancelled before its first step runs no `finally` of its own.
            self._sending.add_done_callback(partial(self._sent, reply, head))

    async def _send(self, reply: Reply, job: Job | None) -> None:
        await _pause(reply.wait_seconds)
        if reply.accepted:
            self._endpoint.accept(job)
        await self._write(reply.head, reply.head_seconds_per_byte)
        await self._write(reply.body, reply.body_seconds_per_byte)
        while reply.endless:
            await self._write(reply.body, 0.0)

    def _sent(self, reply: Reply, head: Head, task: asyncio.Task[None]) -> None:
        self._sending = None
        self._endpoint.finish(head)
        if not task.cancelled():
            task.result()  # has anything but None only if there is a mistake in here
            self._end_reply(reply, head)
            self._serve()

    async def _write(self, data: bytes, seconds_per_byte: float) -> None:
        step = 1 if seconds_per_byte else _WRITE_BYTES
        for start in range(0, len(data), step):
            await self._writable.wait()
            self._transport.write(data[start : start + step])
            # Also without a pause: others get their turn, and a client that left is noticed.
            await asyncio.sleep(seconds_per_byte)

    def _end_reply(self, reply: Reply, head: Head) -> None:
        keep = reply.ending is Ending.KEEP and not head.last and not self._retiring
        if not keep:
            self._end(Ending.CLOSE if reply.ending is Ending.KEEP else reply.ending)

    def _end(self, ending: Ending) -> None:
        self._deaf = True
        if ending is Ending.RESET:
            peer = self._transport.get_extra_info("socket")
            # Lingering on, for no time: closing then sends RST in place of FIN.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif ending is Ending.CLOSE_UNREAD:
            # Closing with bytes unread would reset the connection, and the reply with it.
            if self._transport.can_write_eof():
                self._transport.write_eof()
            asyncio.get_running_loop().call_later(_UNREAD_SECONDS, self._transport.abort)
        else:
            self._transport.close()


async def _pause(seconds: float) -> None:
    """Wait; forever, if `seconds` is infinite. The client's going away ends the wait."""
    if math.isinf(seconds):
        await asyncio.get_running_loop().create_future()
    elif seconds:
        await asyncio.sleep(seconds)
