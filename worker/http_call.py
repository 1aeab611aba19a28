"""One POST to the API.

requests and urllib3 set up what is delicate: TLS, certificates, proxies. A call then writes its
request to the connection and has the standard library read the reply, since their own layers cost
more CPU than all the rest of a job.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from urllib3.exceptions import DecodeError, HTTPError

from ..schemas import Settings
from .classify import Reply
from .connection import Call, CallFailed, LendingAdapter
from .response import FinalResponse

#: Bytes of a reply that are read. The documented one has about a hundred.
MAX_REPLY_BYTES = 64 * 1024
_HEADERS = {
    "Accept-Encoding": "identity",
    "accept": "text/plain",
    "Content-Type": "application/json-patch+json",
    "User-Agent": f"harasocial-dispatch/{version('harasocial-dispatch')}",
}


class Endpoint:
    """The API's endpoint, with connections kept alive. One per process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Of its attributes, requests' types know too few.
        adapter: Any = LendingAdapter(pool_connections=1, pool_maxsize=settings.in_flight)
        template = requests.Request("POST", settings.api_url).prepare()
        proxies = (
            {"http": settings.proxy_url, "https": settings.proxy_url} if settings.proxy_url else {}
        )
        self._pool = adapter.get_connection_with_tls_context(template, verify=True, proxies=proxies)
        if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
            # requests' certificates, as some systems have none (macOS with python.org's Python).
            adapter.cert_verify(self._pool, settings.api_url, verify=True, cert=None)
        headers = {"Host": urlsplit(str(template.url)).netloc, **_HEADERS}
        if urlsplit(str(template.url)).scheme == "http":
            # A proxy passes such requests on, and reads its credentials in each; for https, it is
            # shown them when it makes the tunnel, and sees nothing of what goes through.
            headers |= self._pool.proxy_headers
            self._pool.proxy = None
        # Through a proxy, a plain http request names its whole URL.
        lines = [f"POST {adapter.request_url(template, proxies)} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self._head = "\r\n".join(lines).encode("latin-1")

    def post(self, body: Mapping[str, Any], token: str, call: Call) -> Reply:
        """POST `body` and return the reply, whatever its status.

        Raises:
            CallFailed: there is none.
        """
        settings = self._settings
        content = json.dumps(body, ensure_ascii=False).encode()
        request = b"%s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (
            self._head,
            token.encode("ascii"),
            len(content),
            content,
        )
        try:
            connection = self._pool.lend(call, settings.connect_timeout_seconds)
            return self._exchange(connection, request, call)
        except (HTTPError, HTTPException, OSError) as error:
            raise _failure(error, call) from error

    def _exchange(self, connection: Any, request: bytes, call: Call) -> Reply:
        may_be_kept = False
        try:
            connection.sock.settimeout(
                min(self._settings.read_timeout_seconds, call.seconds_left())
            )
            call.begun = True
            # In one piece, or the body travels in a packet of its own.
            connection.sock.sendall(request)
            response = FinalResponse(connection.sock)
            response.begin()
            reply = _read(response, call)
            may_be_kept = reply.body is not None and not response.will_close
            return reply
        finally:
            if may_be_kept:
                self._pool.take_back(connection)
            else:
                self._pool.discard(connection)

    def close(self) -> None:
        """Close the kept connections."""
        # The adapter's own method lets go of the pool, which would close it only with this object.
        self._pool.close()


def _failure(error: Exception, call: Call) -> CallFailed:
    """Return what `error` means. Its text is not kept: it may quote what was sent or received."""
    detail = type(error).__name__
    if not call.begun:
        return CallFailed("connection_failed", detail)
    if call.cut_off or isinstance(error, TimeoutError):
        return CallFailed("timeout", detail)
    return CallFailed("connection_lost", detail)


def _read(response: FinalResponse, call: Call) -> Reply:
    """Read at most the cap of the body."""
    body: bytes | None = None
    try:
        body = response.read(MAX_REPLY_BYTES + 1)
        if len(body) <= MAX_REPLY_BYTES:
            if response.length:
                raise HTTPException("the connection ended before the body")
            body = _unpacked(body, response.fields.get("content-encoding"))
        if len(body) > MAX_REPLY_BYTES:
            body = None
    except DecodeError:
        body = None
    except (HTTPException, OSError) as error:
        if 200 <= response.status < 300:
            raise _failure(error, call) from error
        # The status alone says what such a reply means.
        body = None
    if call.cut_off and 200 <= response.status < 300 and response.ends_with_connection:
        # A shut socket looks like the end of the body.
        raise CallFailed("timeout", "the call's deadline passed while the reply came in")
    return Reply(
        status=response.status,
        body=body,
        retry_after=response.fields.get("retry-after"),
        date=response.fields.get("date"),
    )


def _unpacked(body: bytes, content_encoding: str | None) -> bytes:
    """Return what a server packed without being asked to, as far as just beyond the cap.

    Raises:
        DecodeError: it cannot be unpacked.
    """
    if content_encoding is None:
        return body
    packed = urllib3.HTTPResponse(
        io.BytesIO(body), {"Content-Encoding": content_encoding}, preload_content=False
    )
    return packed.read(MAX_REPLY_BYTES + 1)
