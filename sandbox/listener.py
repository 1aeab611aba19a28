"""The listening socket and the connections it took.

Not `asyncio.start_server`: closed in the moment in which a connection comes in, it leaves that
connection open with nobody to serve it, and a client waits on it in vain.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

from .connection import Connection
from .endpoint import Endpoint

#: Connections the system may hold ready while they wait to be taken.
_BACKLOG = 1024


class Listener:
    """Takes connections while it is open. All methods belong on the event loop's thread."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._socket: socket.socket | None = None
        self._connections: set[Connection] = set()
        # A loop holds its tasks only weakly.
        self._handshakes: set[asyncio.Task[Any]] = set()

    def open(self, host: str, port: int) -> int:
        """Listen, unless it does so already; return the port.

        Raises:
            OSError: if the address cannot be listened on.
        """
        if self._socket is None:
            family, _, _, _, address = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._socket = socket.create_server(address, family=family, backlog=_BACKLOG)
            self._socket.setblocking(False)
            asyncio.get_running_loop().add_reader(self._socket, self._accept)
        number: int = self._socket.getsockname()[1]
        return number

    def close(self) -> None:
        """Take no more connections, and let those that are there finish their replies."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for connection in list(self._connections):
            connection.retire()

    async def abort(self) -> None:
        """Take no more connections, and end those that are there, whatever they do."""
        self.close()
        await asyncio.sleep(0)  # a task cancelled before its first step would not close its socket
        for connection in list(self._connections):
            connection.abort()
        for handshake in self._handshakes:
            handshake.cancel()
        while self._connections or self._handshakes:  # until each has been told
            await asyncio.sleep(0)

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_BACKLOG):
            if self._socket is None:
                return
            try:
                peer, _ = self._socket.accept()
            except OSError:  # there is none left, or it has gone again
                return
            peer.setblocking(False)
            handshake = loop.create_task(
                loop.connect_accepted_socket(self._make_connection, peer, ssl=self._tls)
            )
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._shaken)

    def _make_connection(self) -> Connection:
        return Connection(self._endpoint, self._connections, lambda: self._socket is None)

    def _shaken(self, handshake: asyncio.Task[Any]) -> None:
        self._handshakes.discard(handshake)
        if not handshake.cancelled():
            handshake.exception()  # a client that does not speak TLS is its own concern
