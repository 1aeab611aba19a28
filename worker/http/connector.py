"""Connect to the endpoint: name lookup, addresses, proxy, TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any, TypeVar

import httptools

from .connection import Connection
from .endpoint import Address, Endpoint
from .lookup import Found, Lookup
from .reply_reader import MAX_HEAD_BYTES

#: Maximum connections that are opened at the same time. More handshakes would slow each other down.
_MAX_AT_ONCE = 64

T = TypeVar("T")


class ConnectFailed(Exception):
    """The connection failed. The text is the cause; it contains no received data."""


class Connector:
    """Opens connections to the endpoint, through the proxy if there is one.

    Args:
        timeout_seconds: for each address, for the proxy's reply, and for each TLS handshake.
    """

    def __init__(self, endpoint: Endpoint, timeout_seconds: float) -> None:
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._lookup = Lookup()
        self._turns = asyncio.Semaphore(_MAX_AT_ONCE)

    async def connect(self) -> Connection:
        """Return an open connection on which no request was sent.

        Raises:
            ConnectFailed: the connection failed.
        """
        async with self._turns:
            try:
                connection = await self._connect()
            except (OSError, asyncio.TimeoutError, UnicodeError) as error:
                raise ConnectFailed(type(error).__name__) from None
        # With TLS, also with a proxy's, unread data may be the server's session tickets.
        hops = (self._endpoint.proxy, self._endpoint.address)
        has_tls = any(hop is not None and hop.tls for hop in hops)
        if not connection.is_open or not (has_tls or connection.is_quiet()):
            connection.close()
            raise ConnectFailed("the server closed the connection or sent data first")
        return connection

    def close(self) -> None:
        """Start no more lookups."""
        self._lookup.close()

    async def _connect(self) -> Connection:
        endpoint = self._endpoint
        first = endpoint.proxy or endpoint.address
        if endpoint.connect_request is None:
            _, connection = await self._open(first, Connection)
            return connection
        transport, tunnel = await self._open(first, _Tunnel)
        try:
            transport.write(endpoint.connect_request)
            await self._in_time(tunnel.opened)
            connection = Connection()
            secure = await self._in_time(
                asyncio.get_running_loop().start_tls(
                    transport,
                    connection,
                    endpoint.address.tls,  # type: ignore[arg-type]  # a tunnel is for TLS
                    server_hostname=endpoint.address.host,
                )
            )
            if secure is None:
                raise ConnectionResetError
            connection.connection_made(secure)
        except BaseException:
            transport.abort()
            raise
        return connection

    async def _open(self, address: Address, protocol: type[T]) -> tuple[Any, T]:
        """Connect to one of the addresses of a host, with TLS if `address` requires it."""
        reached = await self._reach(address)
        loop = asyncio.get_running_loop()
        try:
            return await self._in_time(
                loop.create_connection(  # type: ignore[type-var]  # T is a protocol's type
                    protocol,
                    sock=reached,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls else None,
                )
            )
        except BaseException:
            reached.close()
            raise

    async def _reach(self, address: Address) -> socket.socket:
        reason: Exception = OSError()
        for found in await self._lookup.addresses(address.host, address.port):
            try:
                return await self._reach_one(found)
            except (OSError, asyncio.TimeoutError) as error:
                reason = error
        raise reason

    async def _reach_one(self, found: Found) -> socket.socket:
        family, kind, protocol, _, socket_address = found
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await self._in_time(asyncio.get_running_loop().sock_connect(made, socket_address))
        except BaseException:
            made.close()
            raise
        return made

    async def _in_time(self, awaitable: Awaitable[T]) -> T:
        return await asyncio.wait_for(awaitable, self._timeout_seconds)


class _Tunnel(asyncio.Protocol):
    """Reads a proxy's reply to CONNECT. A successful reply completes `opened`."""

    def __init__(self) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._left = MAX_HEAD_BYTES
        self._status = 0
        self._is_followed = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._is_followed = True
        if self.opened.done():
            return
        if self._left < 0 or self._is_followed or self._status >= 300:
            self._fail(ConnectionRefusedError())
        elif self._status >= 200:
            # The following data belongs to TLS.
            self._transport.pause_reading()
            self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionResetError())

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()

    def on_body(self, _body: bytes) -> None:
        self._is_followed = True

    def on_chunk_header(self) -> None:
        self._is_followed = True

    def _fail(self, error: Exception) -> None:
        if not self.opened.done():
            self.opened.set_exception(error)
