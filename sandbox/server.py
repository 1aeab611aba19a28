"""An HTTP/1.1 server whose replies are sequences of bytes, delays and endings.

It runs an asyncio loop on a background thread. Connections execute the steps of their replies
without separate tasks, so many slow and hanging replies are cheap.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar, cast

from .reply import Ending, Handler, Step, make_reply
from .request import RefusedRequestError, RequestBuffer

T = TypeVar("T")
ServerT = TypeVar("ServerT", bound="Server")

#: Maximum connections that the system queues before they are accepted.
_BACKLOG = 1024
#: Time for a client to read the refusal of an incompletely read request.
_UNREAD_SECONDS = 1.0
#: Addresses to listen on → addresses to connect to.
_ANY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Server:
    """Serves HTTP on a background thread from `start` to `stop`.

    Args:
        handler: called on the server's thread with each complete request.
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        tls: a server context, to serve HTTPS.
        thread_name: the name of the background thread.

    All methods are thread-safe. The handler must not call them.
    """

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        thread_name: str = "http-server",
    ) -> None:
        self.handler = handler
        #: Number of accepted connections, and how many of them have ended.
        self.connections = 0
        self.ended = 0
        self._host = host
        self._port = port
        self._tls = tls
        self._thread_name = thread_name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._open: set[_Connection] = set()
        # The event loop keeps only weak references to its tasks.
        self._handshakes: set[asyncio.Task[None]] = set()

    def start(self: ServerT) -> ServerT:
        """Listen, and return self.

        Raises:
            OSError: the server cannot listen on the address, for example because it is in use.
            RuntimeError: the server is already started.
        """
        if self._thread is not None:
            raise RuntimeError("the server is already started")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name=self._thread_name, daemon=True
        )
        self._thread.start()
        try:
            self.up()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._thread is None or self._loop is None:
            return
        self._run(self._abort())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._thread = self._loop = None

    def __enter__(self: ServerT) -> ServerT:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def down(self) -> None:
        """Refuse connections, like a stopped server. Current replies are completed."""
        self._run(self._stop_listening())

    def up(self) -> None:
        """Listen again, on the same port.

        Raises:
            OSError: another program has taken the port.
        """
        self._run(self._listen())

    @property
    def host(self) -> str:
        """The address to connect to."""
        return _ANY_ADDRESS.get(self._host, self._host)

    @property
    def port(self) -> int:
        """The port. It stays the same after `down`, `up` and another start."""
        if not self._port:
            raise RuntimeError("the server was not started, so its port is not known")
        return self._port

    @property
    def root_url(self) -> str:
        """The URL before any path, such as `http://127.0.0.1:41523`."""
        scheme = "http" if self._tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    # On the event loop's thread.

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the server is not started")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> None:
        if self._listener is not None:
            return
        family, _, _, _, address = socket.getaddrinfo(
            self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self._listener = socket.create_server(address, family=family, backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        # `asyncio.start_server` is not used. If it closes while it accepts a connection, that
        # connection stays open and is never served.
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None
        for connection in list(self._open):
            connection.retire()

    async def _abort(self) -> None:
        await self._stop_listening()
        await asyncio.sleep(0)  # a task canceled before its first step would not close its socket
        for connection in list(self._open):
            connection.abort()
        for handshake in self._handshakes:
            handshake.cancel()
        while self._open or self._handshakes:
            await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError:  # the client has already disconnected
            return
        peer.setblocking(False)
        self.connections += 1
        handshake = asyncio.get_running_loop().create_task(self._connect(peer))
        self._handshakes.add(handshake)
        handshake.add_done_callback(self._handshakes.discard)

    async def _connect(self, peer: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self), peer, ssl=self._tls
            )
        except OSError:  # the TLS handshake failed
            self.ended += 1

    def opened(self, connection: _Connection) -> None:
        """Add a connection."""
        self._open.add(connection)
        if self._listener is None:  # the server went down after it accepted the connection
            connection.retire()

    def closed(self, connection: _Connection) -> None:
        """Remove a connection."""
        self._open.discard(connection)
        # asyncio closes the socket after this call.
        asyncio.get_running_loop().call_soon(self._count_ended)

    def _count_ended(self) -> None:
        self.ended += 1


class _Connection(asyncio.Protocol):
    """Replies to the requests of one client, in order, until one side closes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = RequestBuffer()
        #: The rest of the current reply.
        self._steps: Generator[Step, None, None] | None = None
        #: The end of the current delay.
        self._timer: asyncio.TimerHandle | None = None
        self._keep_alive = True
        self._retiring = False
        self._ending = False
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reply()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        self._buffer.add(data)
        if self._steps is None:
            self._advance()
        elif self._buffer.is_full():
            self.abort()  # the client does not wait for replies

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._advance()

    def retire(self) -> None:
        """Close when the current reply is complete, or now if there is none."""
        self._retiring = True
        if self._steps is None:
            self._end(Ending.CLOSE)

    def abort(self) -> None:
        self._stop_reply()
        self._transport.abort()

    def _advance(self) -> None:
        """Execute steps until one takes time or every request has its reply."""
        while self._writable and self._timer is None and not self._transport.is_closing():
            if self._steps is None:
                self._steps = self._next_reply()
            if self._steps is None:
                return
            step = next(self._steps, None)
            if isinstance(step, bytes):
                self._transport.write(step)
            elif step is None:
                self._steps = None
                if self._retiring or not self._keep_alive:
                    self._end(Ending.CLOSE)
            elif isinstance(step, Ending):
                self._end(step)
            else:
                self._timer = asyncio.get_running_loop().call_later(step, self._delay_ended)

    def _delay_ended(self) -> None:
        self._timer = None
        self._advance()

    def _next_reply(self) -> Generator[Step, None, None] | None:
        if self._ending:
            return None
        try:
            request = self._buffer.take_request()
        except RefusedRequestError as refusal:
            return _refuse(refusal)
        if request is not None:
            self._keep_alive = request.head.keep_alive
            return self._server.handler(request)
        if self._buffer.must_continue():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    def _stop_reply(self) -> None:
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def _end(self, ending: Ending) -> None:
        self._stop_reply()
        if ending is Ending.RESET:
            peer = self._transport.get_extra_info("socket")
            # With a linger time of 0 seconds, closing the socket sends RST instead of FIN.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif ending is Ending.CLOSE_UNREAD:
            # Closing with unread bytes would reset the connection and lose the reply.
            if self._transport.can_write_eof():
                self._transport.write_eof()
            asyncio.get_running_loop().call_later(_UNREAD_SECONDS, self._transport.abort)
        else:
            self._transport.close()


def _refuse(refusal: RefusedRequestError) -> Generator[Step, None, None]:
    headers = (("Connection", "close"),)
    yield make_reply(refusal.status, f"{refusal}\n".encode(), headers=headers)
    yield Ending.CLOSE_UNREAD
