"""One POST to the API: the only place where HTTP is spoken.

requests sets up what is delicate (TLS, certificates, proxies); each call then goes straight to the
urllib3 pool under it, since requests' own layers cost more CPU than all the rest of a job.

A call has an overall deadline, however slowly the server drips: the pump looks at the clock and
shuts the socket of a call that is late, which wakes the thread that reads from it.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, parse_headers
from importlib.metadata import version
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import DecodeError, HTTPError
from urllib3.util.connection import create_connection

from ..schemas import Settings
from .classify import Reply

#: Bytes of a reply that are read. The documented one has about a hundred.
MAX_REPLY_BYTES = 64 * 1024
#: A connection unused for this long is not used again: many servers close theirs at about this
#: age, and a POST sent into a closing connection is lost without anyone knowing.
MAX_IDLE_SECONDS = 15.0

#: Name lookups under way at once. One that hangs holds a place until the resolver gives up.
_MAX_LOOKUPS = 8

_HEADERS = {
    "accept": "text/plain",
    "Content-Type": "application/json-patch+json",
    "User-Agent": f"harasocial-dispatch/{version('harasocial-dispatch')}",
}

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

    def cut_off_if_late(self, now: float) -> None:
        """Wake the thread that waits for this call, if its deadline has passed."""
        if now >= self.deadline and not self.cut_off:
            self.cut_off = True
            if self.connection is not None:
                self.connection.shut_for(self)


#: The call that the current thread makes; a connection learns from it what it is used for.
_current = threading.local()
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
                    min(self.timeout, _seconds_left(call)),
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
            found = lookup.result(timeout=_seconds_left(call))
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
        _seconds_left(call)
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


def _seconds_left(call: Call) -> float:
    """Return the seconds until the call's deadline.

    Raises:
        CallFailed: there are none; nothing of the request has gone out.
    """
    seconds = call.deadline - time.monotonic()
    if call.cut_off or seconds <= 0:
        raise CallFailed("connection_failed", "no connection before the call's deadline")
    return seconds


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


class _Adapter(HTTPAdapter):
    """requests' adapter, making connections that are watched."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        return manager


class Endpoint:
    """The API's endpoint, with connections kept alive. One per process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapter = _Adapter(pool_connections=1, pool_maxsize=settings.in_flight)
        template = requests.Request("POST", settings.api_url).prepare()
        proxies = (
            {"http": settings.proxy_url, "https": settings.proxy_url} if settings.proxy_url else {}
        )
        self._pool: Any = self._adapter.get_connection_with_tls_context(
            template, verify=True, proxies=proxies
        )
        # Through a proxy, a plain http request names its whole URL.
        self._target = self._adapter.request_url(template, proxies)
        self._no_retries = urllib3.Retry(total=False)

    def post(self, body: Mapping[str, Any], token: str, call: Call) -> Reply:
        """POST `body` and return the reply, whatever its status.

        Raises:
            CallFailed: there is none.
        """
        settings = self._settings
        _current.call = call
        remaining = _seconds_left(call)
        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body=json.dumps(body, ensure_ascii=False).encode(),
                headers={**_HEADERS, "Authorization": f"Bearer {token}"},
                retries=self._no_retries,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                timeout=urllib3.Timeout(
                    connect=min(settings.connect_timeout_seconds, remaining),
                    read=min(settings.read_timeout_seconds, remaining),
                ),
            )
        except (HTTPError, HTTPException, OSError) as error:
            raise _failure(error, call) from error
        return _read(response, call)

    def close(self) -> None:
        """Close the kept connections."""
        self._adapter.close()


def _failure(error: Exception, call: Call) -> CallFailed:
    """Return what `error` means. Its text is not kept: it may quote what was sent or received."""
    detail = type(error).__name__
    if not call.begun:
        return CallFailed("connection_failed", detail)
    if call.cut_off or isinstance(error, (urllib3.exceptions.ReadTimeoutError, TimeoutError)):
        return CallFailed("timeout", detail)
    return CallFailed("connection_lost", detail)


def _read(response: urllib3.BaseHTTPResponse, call: Call) -> Reply:
    """Read at most the cap of the body; the connection is kept only after a whole one."""
    body: bytes | None = None
    cut_short = False
    try:
        body = response.read(MAX_REPLY_BYTES + 1, decode_content=True)
        if len(body) > MAX_REPLY_BYTES:
            body = None
    except DecodeError:
        body = None
    except (HTTPError, HTTPException, OSError) as error:
        if 200 <= response.status < 300:
            raise _failure(error, call) from error
        # The status alone says what such a reply means.
        cut_short = True
    if call.cut_off and 200 <= response.status < 300:
        # Without a length, a shut socket looks like the end of the body.
        response.close()
        raise CallFailed("timeout", "the call's deadline passed while the reply came in")
    if body is None:
        response.close()
    else:
        response.release_conn()
    return Reply(
        status=response.status,
        body=body,
        cut_short=cut_short,
        retry_after=response.headers.get("Retry-After"),
        date=response.headers.get("Date"),
    )
