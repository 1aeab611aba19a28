"""The API's endpoint: everything that is the same for every call, prepared once.

The library requests prepares the URL (IDNA, percent-encoding), the certificate authorities and the
proxy's credentials.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.utils import get_auth_from_url, urldefragauth

from ...schemas import Settings, SettingsError

#: Created once: `json.dumps` would create an encoder for each call.
_encode = json.JSONEncoder(ensure_ascii=False).encode

_HEADERS = {
    "Accept-Encoding": "identity",
    "accept": "text/plain",
    "Content-Type": "application/json-patch+json",
    "User-Agent": f"harasocial-dispatch/{version('harasocial-dispatch')}",
}


@dataclass(frozen=True, slots=True)
class Address:
    """An address to connect to, with a TLS context if it requires TLS."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Endpoint:
    """The addresses of API and proxy, and the heads of requests.

    Attributes:
        address: the API's address.
        proxy: the proxy's address; None for direct calls.
        connect_request: the request that opens a tunnel through the proxy; None without a tunnel.

    Raises:
        SettingsError: this version of Python does not support the settings.
    """

    def __init__(self, settings: Settings) -> None:
        url = str(requests.Request("POST", settings.api_url).prepare().url)
        parts = urlsplit(url)
        schemes = (parts.scheme, urlsplit(settings.proxy_url or "").scheme)
        tls = _tls_context() if "https" in schemes else None
        self.address = _address(url, tls)
        self.proxy = _address(settings.proxy_url, tls) if settings.proxy_url else None
        self.connect_request: bytes | None = None
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        headers = {"Host": parts.netloc, **_HEADERS}
        if settings.proxy_url and self.proxy:
            credentials = _proxy_credentials(settings.proxy_url)
            if self.address.tls is None:
                # The proxy forwards these requests. Each of them needs the proxy's credentials.
                target = urldefragauth(url)
                headers |= credentials
            else:
                if self.proxy.tls is not None and sys.version_info < (3, 11):
                    raise SettingsError(
                        "HARASOCIAL_PROXY_URL begins with https://, which needs Python 3.11 or "
                        "newer; use a proxy at http:// (calls to an https:// API stay encrypted)"
                    )
                host = self.address.host
                authority = f"[{host}]" if ":" in host else host
                authority = f"{authority}:{self.address.port}"
                self.connect_request = (
                    _head(f"CONNECT {authority} HTTP/1.1", {"Host": authority, **credentials})
                    + b"\r\n\r\n"
                )
        self._head = _head(f"POST {target} HTTP/1.1", headers)

    def request(self, body: Mapping[str, Any], token: str) -> bytes:
        """Return the bytes of the POST request with `body`."""
        content = _encode(body).encode()
        return b"%s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (
            self._head,
            token.encode("ascii"),
            len(content),
            content,
        )


def _head(line: str, headers: Mapping[str, str]) -> bytes:
    return "\r\n".join([line, *(f"{k}: {v}" for k, v in headers.items())]).encode("latin-1")


def _address(url: str, tls: ssl.SSLContext | None) -> Address:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return Address(str(parts.hostname), parts.port or 443, tls)
    return Address(str(parts.hostname), parts.port or 80, None)


def _proxy_credentials(proxy_url: str) -> dict[str, str]:
    user, password = get_auth_from_url(proxy_url)
    if not user:
        return {}
    text = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return {"Proxy-Authorization": f"Basic {text}"}


def _tls_context() -> ssl.SSLContext:
    """Return a TLS context that verifies certificates.

    It trusts the certificates that the environment names, or else those of requests, because some
    systems have none (macOS with python.org's Python).
    """
    has_own = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ
    context = ssl.create_default_context(
        cafile=None if has_own else requests.utils.DEFAULT_CA_BUNDLE_PATH
    )
    context.set_alpn_protocols(["http/1.1"])
    return context
