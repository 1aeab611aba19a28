"""Connections to the API that keep to a call's deadline, whatever the network does.

A call has an overall deadline, however slowly the server drips: the pump looks at the clock and
shuts the socket of a call that is late, which wakes the thread that reads from it. Name lookup and
connecting share the deadline; neither the system's resolver nor urllib3 would.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import socket
import threading
import time
from dataclasses import dataclass
from http.client import HTTPResponse, parse_headers
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

# It warns of malformed headers by quoting them, and the API might echo the token there.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


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
        if self.cut_off or seconds <= 0:
            raise CallFailed("connection_failed", "no connection before the call's deadline")
        return seconds

    def cut_off_if_late(self, now: float) -> None:
        """Wake the thread that waits for this call, if its deadline has passed."""
        if now >= self.deadline and not self.cut_off:
            self.cut_off = True
            if self.connection is not None:
                self.connection.shut_for(self)


#: The call that the current thread makes; a connection learns from it what it is used for.
_current = threading.local()


def begin(call: Call) -> None:
    """Say that what this thread does with connections from now on is for `call`."""
    _current.call = call


#: The system's resolver cannot be told when to give up, so others wait for it.
_lookups = concurrent.futures.ThreadPoolExecutor(_MAX_LOOKUPS, thread_name_prefix="lookup")


class _FinalReply(HTTPResponse):
    """A reply after any interim ones (1xx), of which the standard library skips only 100."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not public
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            parse_headers(self.fp)

    def begin(self) -> None:
        super().begin()
        if self.status == 101:
            # What follows is another protocol, which nobody asked for.
            self.will_close = True


class _Watched:
    """What both kinds of connection do for the current call."""

    response_class: Any = _FinalReply

    sock: Any
    timeout: Any
    socket_options: Any
    _dns_host: str
    port: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._user_lock = threading.Lock()
        self._user: Call | None = None
        #: Kept here, since http.client drops its own while a last reply is still being read.
        self._socket: Any = None
        self._used_at = 0.0

    @property
    def is_connected(self) -> bool:
        fresh = time.monotonic() - self._used_at < MAX_IDLE_SECONDS
        return fresh and bool(super().is_connected)  # type: ignore[misc]  # of urllib3's class

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses within the call's deadline.

        urllib3 gives each address all of the connect timeout, and the lookup as long as it takes.
        """
        call: Call = _current.call
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
            self._watch(connected, call)
            # For a TLS handshake, which takes at most this long as a whole.
            left = call.deadline - time.monotonic()
            connected.settimeout(max(0.001, min(self.timeout, left)))
            return connected
        raise CallFailed("connection_failed", reason)

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

    def _watch(self, connected: Any, call: Call) -> None:
        with self._user_lock:
            self._user = call
            # TLS through a TLS proxy is not a socket, but has one.
            self._socket = getattr(connected, "socket", connected)
        call.connection = self

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._use_for_current_call()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self._use_for_current_call()
        super().request(*args, **kwargs)  # type: ignore[misc]
        self._used_at = time.monotonic()

    def _use_for_current_call(self) -> None:
        call: Call = _current.call
        self._watch(self.sock, call)
        call.seconds_left()  # which raises if there are none
        call.begun = True

    def leave(self) -> None:
        """Say that no call uses this any more: from now on, none that is late may shut it."""
        with self._user_lock:
            self._user = self._socket = None

    def shut_for(self, call: Call) -> None:
        """Shut the socket, unless the call has left it."""
        with self._user_lock:
            if self._user is call:
                with contextlib.suppress(OSError):  # closed already, which wakes the thread too
                    # The plain socket's method: that of a TLS socket would take its state apart
                    # under the thread that is reading from it.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _PlainConnection(_Watched, HTTPConnection):
    pass


class _TlsConnection(_Watched, HTTPSConnection):
    # The handshake is done within `connect`, so a TLS failure comes before `begun`.
    pass


class _LeavingPool:
    """A pool whose connections are left before another call may take them."""

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            connection.leave()
        super()._put_conn(connection)  # type: ignore[misc]  # of urllib3's class


class _PlainPool(_LeavingPool, HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(_LeavingPool, HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class WatchedAdapter(HTTPAdapter):
    """requests' adapter, making connections that are watched."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager
