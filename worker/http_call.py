"""One POST to the API.

requests sets up what is delicate (TLS, certificates, proxies); each call then goes straight to the
urllib3 pool under it, since requests' own layers cost more CPU than all the rest of a job.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from http.client import HTTPException
from importlib.metadata import version
from typing import Any

import requests
import urllib3
from urllib3.exceptions import DecodeError, HTTPError

from ..schemas import Settings
from .classify import Reply
from .connection import Call, CallFailed, WatchedAdapter, begin

#: Bytes of a reply that are read. The documented one has about a hundred.
MAX_REPLY_BYTES = 64 * 1024
_HEADERS = {
    "accept": "text/plain",
    "Content-Type": "application/json-patch+json",
    "User-Agent": f"harasocial-dispatch/{version('harasocial-dispatch')}",
}


class Endpoint:
    """The API's endpoint, with connections kept alive. One per process, shared by its threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._adapter = WatchedAdapter(pool_connections=1, pool_maxsize=settings.in_flight)
        template = requests.Request("POST", settings.api_url).prepare()
        proxies = (
            {"http": settings.proxy_url, "https": settings.proxy_url} if settings.proxy_url else {}
        )
        self._pool: Any = self._adapter.get_connection_with_tls_context(
            template, verify=True, proxies=proxies
        )
        if "SSL_CERT_FILE" not in os.environ and "SSL_CERT_DIR" not in os.environ:
            # requests' certificates, as some systems have none (macOS with python.org's Python).
            adapter: Any = self._adapter
            adapter.cert_verify(self._pool, settings.api_url, verify=True, cert=None)
        # Through a proxy, a plain http request names its whole URL.
        self._target = self._adapter.request_url(template, proxies)
        self._no_retries = urllib3.Retry(total=False)

    def post(self, body: Mapping[str, Any], token: str, call: Call) -> Reply:
        """POST `body` and return the reply, whatever its status.

        Raises:
            CallFailed: there is none.
        """
        settings = self._settings
        begin(call)
        remaining = call.seconds_left()
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
