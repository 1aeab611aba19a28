"""Connections to the API that keep to a call's deadline, whatever the network does.

A call has an overall deadline, however slowly the server drips: the pump looks at the clock and
shuts the socket of a call that is late, which wakes the thread that reads from it. Name lookup and
connecting share the deadline; neither the system's resolver nor urllib3 would.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection

#: A connection unused for this long is not used again: many servers close theirs at about this
#: age, and a POST sent into a closing connection is lost without anyone knowing.
MAX_IDLE_SECONDS = 15.0

#: Name lookups under way at once. One that hangs holds a place until the resolver gives up.
_MAX_LOOKUPS = 8


class CallFailed(Exception):
    """There is no reply. `kind` is connection_failed, connection_lost or timeout."""

    def __init__(self, kind: str, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


@dataclass(slots=True, eq=False)
class Call:
    """One POST under way. The thread that makes it and the pump that watches it share this."""

    #: On the monotonic clock.
    deadline: float
    #: The connection in use, once there is one.
    connection: _Watched | None = None
    #: Whether any byte of the request may have gone out.
    begun: bool = False
    #: Whether the deadline passed before the reply was whole.
    cut_off: bool = False

    def seconds_left(self) -> float:
        """Return the seconds until the deadline.

        Raises:
            CallFailed: there are none; nothing of the request has gone out.
        """
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise CallFailed("connection_failed", "no connection before the call's deadline")
        return seconds

    def cut_off_if_late(self, now: float) -> None:
        """Wake the thread that waits for this call, if its deadline has passed."""
        if now >= self.deadline:
            self.cut_off = True
            # At each look again: the first one may come just before there is a socket to shut.
            if self.connection is not None:
                self.connection.shut_for(self)


#: The system's resolver cannot be told when to give up, so others wait for it.
_lookups = concurrent.futures.ThreadPoolExecutor(_MAX_LOOKUPS, thread_name_prefix="lookup")


class _Watched:
    """What both kinds of connection do for the call that uses them."""

    sock: Any
    timeout: Any
    socket_options: Any
    _dns_host: str
    port: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._call: Call | None = None
        self._left_at = 0.0

    @property
    def is_connected(self) -> bool:
        fresh = time.monotonic() - self._left_at < MAX_IDLE_SECONDS
        return fresh and bool(super().is_connected)  # type: ignore[misc]  # of urllib3's class

    def use_for(self, call: Call) -> None:
        """Say that `call` uses this from now on, and may shut it when it is late."""
        with self._lock:
            self._call = call
        call.connection = self

    def leave(self) -> None:
        """Say that no call uses this any more, so that none that is late shuts it."""
        with self._lock:
            self._call = None
        self._left_at = time.monotonic()

    def shut_for(self, call: Call) -> None:
        """Shut the socket, unless the call has left it."""
        with self._lock:
            # TLS through a TLS proxy is not a socket, but has one.
            used = getattr(self.sock, "socket", self.sock)
            if self._call is call and used is not None:
                with contextlib.suppress(OSError):  # closed already, which wakes the thread too
                    # The plain socket's method: that of a TLS socket would take its state apart
                    # under the thread that is reading from it.
                    socket.socket.shutdown(used, socket.SHUT_RDWR)

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses within the call's deadline.

        urllib3 gives each address all of the connect timeout, and the lookup as long as it takes.
        """
        call: Any = self._call  # there is one: a pool that lends connects for a call
        reason = "the name has no address"
        for address in self._addresses(call):
            try:
                connected: socket.socket = create_connection(
                    address,
                    min(self.timeout, call.seconds_left()),
                    socket_options=self.socket_options,
                )
            except OSError as error:
                reason = type(error).__name__
                continue
            # For a TLS handshake, which takes at most this long as a whole.
            left = call.deadline - time.monotonic()
            connected.settimeout(max(0.001, min(self.timeout, left)))
            return connected
        raise CallFailed("connection_failed", reason)

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        call: Any = self._call
        # For the handshake within the tunnel, likewise.
        self.sock.settimeout(min(self.timeout, call.seconds_left()))

    def _addresses(self, call: Call) -> list[tuple[str, int]]:
        lookup = _lookups.submit(
            socket.getaddrinfo, self._dns_host, self.port, type=socket.SOCK_STREAM
        )
        try:
            found = lookup.result(timeout=call.seconds_left())
        except concurrent.futures.TimeoutError:
            lookup.cancel()
            raise CallFailed("connection_failed", "the name lookup took too long") from None
        except (OSError, UnicodeError):
            raise CallFailed("connection_failed", "the name cannot be looked up") from None
        return [(str(address[0]), self.port) for *_, address in found]


class _PlainConnection(_Watched, HTTPConnection):
    pass


class _TlsConnection(_Watched, HTTPSConnection):
    pass


class _LendingPool:
    """Lends each of its connections to one call at a time."""

    proxy: Any
    _get_conn: Callable[[], Any]
    _put_conn: Callable[[Any], None]
    _prepare_proxy: Callable[[Any], None]

    def lend(self, call: Call, connect_timeout_seconds: float) -> Any:
        """Return a connection through which a request may be sent at once.

        The TLS handshake is done here too, so its failure comes before any byte of the request.

        Raises:
            CallFailed: the deadline has passed, or there is no connection.
            OSError, urllib3.exceptions.HTTPError: connecting failed, at the proxy or in TLS.
        """
        connection = self._get_conn()
        connection.use_for(call)
        try:
            if connection.is_closed:
                connection.timeout = min(connect_timeout_seconds, call.seconds_left())
                if self.proxy is not None:
                    # For https, this connects and makes a tunnel.
                    self._prepare_proxy(connection)
                if connection.is_closed:
                    connection.connect()
        except BaseException:
            self.discard(connection)
            raise
        return connection

    def take_back(self, connection: Any) -> None:
        """Keep a connection, on which a whole reply was read, for a later call."""
        connection.leave()
        self._put_conn(connection)

    def discard(self, connection: Any) -> None:
        """Close a connection of which nobody knows what will come next."""
        connection.leave()
        connection.close()


class _PlainPool(_LendingPool, HTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _PlainConnection


class _TlsPool(_LendingPool, HTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


class LendingAdapter(HTTPAdapter):
    """requests' adapter, with pools that lend their connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager
