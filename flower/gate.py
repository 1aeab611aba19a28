"""Decide from a request's headers whether Flower handles it, for Flower's pages and ours.

Flower itself checks the login and the origin only in some handlers, after it has read the body.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import logging
import math
import secrets
import time
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest
from tornado.web import create_signed_value, decode_signed_value

from ..schemas.setting_checks import is_loopback
from .login_limit import LoginLimit, client_of

logger = logging.getLogger(__name__)

#: Number of wrong logins that a client may try at once, and seconds until one more is allowed.
WRONG_LOGINS = 20
_REFILL_SECONDS = 3.0
_MAX_CLIENTS = 10_000

#: The cookie of a browser that has logged in. It does not replace the login, but gives it its own
#: limit of attempts: behind a proxy all clients share one address, and a client that guesses
#: passwords must not lock out the others.
_BROWSER_COOKIE = "harasocial_browser"
_BROWSER_COOKIE_DAYS = 31

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Login(Enum):
    """Whether a handler requires the login."""

    REQUIRED = "required"
    #: The handler shows less without a login.
    OPTIONAL = "optional"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The response to a refused request."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)


class Gate:
    """Decides which requests are handled.

    Args:
        credentials: a list of `user:password`; empty if there is no basic login.
        is_local_only: whether there is no login of any kind and Flower listens on an address of
            this host.
        cookie_secret: the secret that signs Flower's cookies.
    """

    def __init__(
        self, credentials: Sequence[str], *, is_local_only: bool, cookie_secret: str | bytes
    ) -> None:
        self._logins = [_digest(each.encode()) for each in credentials]
        self._is_local_only = is_local_only
        self._cookie_secret = cookie_secret
        self._limit = LoginLimit(
            attempts=WRONG_LOGINS, refill_seconds=_REFILL_SECONDS, max_clients=_MAX_CLIENTS
        )

    def refusal(self, request: HTTPServerRequest, login: Login) -> Refusal | None:
        """Return why a request is refused, or None if it is handled."""
        if self._is_local_only and not _is_for_this_host(request):
            return Refusal(
                403,
                "Flower has no login, so it answers only requests to this host's own name. "
                "Open http://127.0.0.1, or set HARASOCIAL_FLOWER_BASIC_AUTH.",
            )
        if request.method not in _READING_METHODS and is_foreign(request):
            return Refusal(403, "A page of another site sent this request. Nothing was changed.")
        if not self._logins or login is Login.IGNORED:
            return None
        return self._refusal_of_login(request, login)

    def new_cookie(self, request: HTTPServerRequest) -> str | None:
        """Return the value of the Set-Cookie header if this browser has just logged in."""
        if not self._is_right(request) or self._browser(request) is not None:
            return None
        value = create_signed_value(self._cookie_secret, _BROWSER_COOKIE, secrets.token_hex(8))
        secure = "; Secure" if request.protocol == "https" else ""
        return (
            f"{_BROWSER_COOKIE}={value.decode('ascii')}; Path=/; HttpOnly; SameSite=Lax; "
            f"Max-Age={_BROWSER_COOKIE_DAYS * 86400}{secure}"
        )

    def _refusal_of_login(self, request: HTTPServerRequest, login: Login) -> Refusal | None:
        denied = Refusal(401, "Access denied", {"WWW-Authenticate": 'Basic realm="flower"'})
        if "Authorization" not in request.headers:
            return denied if login is Login.REQUIRED else None
        now = time.monotonic()
        client = self._browser(request) or client_of(request.remote_ip or "")
        # A correct login is refused too. Otherwise, an attacker could detect the correct guess.
        wait_seconds = math.ceil(self._limit.wait_seconds(client, now=now))
        if wait_seconds:
            return Refusal(
                429,
                f"Too many wrong logins. Try again in {wait_seconds} seconds.",
                {"Retry-After": str(wait_seconds)},
            )
        if self._is_right(request):
            return None
        if self._limit.count_wrong(client, now=now):
            logger.warning(
                "too many wrong logins from %s; further logins are refused for now",
                client_of(request.remote_ip or ""),
                extra={"action": "logins_limited"},
            )
        return denied

    def _is_right(self, request: HTTPServerRequest) -> bool:
        """Return whether the request has a valid login, in constant time."""
        given = _digest(_basic_credentials(request.headers.get("Authorization", "")))
        return sum(hmac.compare_digest(given, login) for login in self._logins) > 0

    def _browser(self, request: HTTPServerRequest) -> str | None:
        """Return the id of the browser if it has logged in before."""
        cookie = request.cookies.get(_BROWSER_COOKIE)
        value = decode_signed_value(
            self._cookie_secret,
            _BROWSER_COOKIE,
            cookie.value if cookie else None,
            max_age_days=_BROWSER_COOKIE_DAYS,
        )
        return None if value is None else f"browser {value.decode('ascii')}"


def is_foreign(request: HTTPServerRequest) -> bool:
    """Return whether a page of another origin sent the request.

    Another port of the same host is another origin. Non-browser clients send neither header.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("Origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc != request.host
    except ValueError:
        return True


def _is_for_this_host(request: HTTPServerRequest) -> bool:
    """Return whether the Host header is a name of this host.

    This prevents DNS rebinding: a site can resolve its own host name to this host. The browser then
    treats the site and Flower as the same origin.
    """
    try:
        return is_loopback(urlsplit(f"//{request.host}").hostname or "")
    except ValueError:
        return False


def login_of(request: HTTPServerRequest) -> str:
    """Return the user name of a request's login, or "" if it has none."""
    credentials = _basic_credentials(request.headers.get("Authorization", ""))
    return credentials.partition(b":")[0].decode(errors="replace")


def _basic_credentials(header: str) -> bytes:
    """Return the credentials of an `Authorization` header; b"" if it is not valid Basic."""
    scheme, _, encoded = header.partition(" ")
    try:
        return b64decode(encoded.strip(), validate=True) if scheme == "Basic" else b""
    except (binascii.Error, ValueError):
        return b""


def _digest(text: bytes) -> bytes:
    """Return a digest, so that the comparison does not reveal the length of a login."""
    return hashlib.sha256(text).digest()
