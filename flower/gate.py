"""Decides from a request's head whether Flower answers it: for its own pages and those added to it.

Flower checks logins, hosts and origins within some of its handlers, after it has read the body.
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

#: Wrong logins that a client may try at once, and seconds until it may try one more.
WRONG_LOGINS = 20
_REFILL_SECONDS = 3.0
_MAX_CLIENTS = 10_000

#: The cookie of a browser that has logged in. It does not replace the login. It gives that browser
#: attempts of its own: behind a proxy all clients share one address, and a client that guesses
#: passwords must not lock out the others.
_BROWSER_COOKIE = "harasocial_browser"
_BROWSER_COOKIE_DAYS = 31

_READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Login(Enum):
    """Whether a handler asks for the login."""

    REQUIRED = "required"
    #: It shows less without one.
    OPTIONAL = "optional"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that is not handled."""

    status: int
    message: str
    headers: dict[str, str] = field(default_factory=dict)


class Gate:
    """Decide which requests are handled.

    Args:
        credentials: each `user:password`; none if there is no such login.
        is_local_only: whether there is no login of any kind and Flower listens on an address of
            this host.
        cookie_secret: what Flower's cookies are signed with.
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
        """Return the cookie to set, as a header has it, if this browser has just logged in."""
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
        # A right login is refused as well: to let it in would show which guess was right.
        wait_seconds = math.ceil(self._limit.wait_seconds(client, now=now))
        if wait_seconds:
            return Refusal(
                429,
                f"There were too many wrong logins. Try again in {wait_seconds} seconds.",
                {"Retry-After": str(wait_seconds)},
            )
        if self._is_right(request):
            return None
        if self._limit.count_wrong(client, now=now):
            logger.warning(
                "too many wrong logins from %s; more of them are refused for now",
                client_of(request.remote_ip or ""),
                extra={"action": "logins_limited"},
            )
        return denied

    def _is_right(self, request: HTTPServerRequest) -> bool:
        """Return whether the request has a login, in a time that does not depend on which."""
        given = _digest(_basic_credentials(request.headers.get("Authorization", "")))
        return sum(hmac.compare_digest(given, login) for login in self._logins) > 0

    def _browser(self, request: HTTPServerRequest) -> str | None:
        """Return the browser that this is, if it has logged in before."""
        cookie = request.cookies.get(_BROWSER_COOKIE)
        value = decode_signed_value(
            self._cookie_secret,
            _BROWSER_COOKIE,
            cookie.value if cookie else None,
            max_age_days=_BROWSER_COOKIE_DAYS,
        )
        return None if value is None else f"browser {value.decode('ascii')}"


def is_foreign(request: HTTPServerRequest) -> bool:
    """Return whether a browser sent the request for a page of another origin.

    Another port of the same host is another origin too. Programs send neither header.
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
    """Return whether the request names this host.

    A site can let a name of its own lead here. Its pages then reach Flower through the browser of
    whoever opens them, and the browser takes both for the same origin.
    """
    try:
        return is_loopback(urlsplit(f"//{request.host}").hostname or "")
    except ValueError:
        return False


def login_of(request: HTTPServerRequest) -> str:
    """Return the user name of the login that a request has, or "" if it has none."""
    credentials = _basic_credentials(request.headers.get("Authorization", ""))
    return credentials.partition(b":")[0].decode(errors="replace")


def _basic_credentials(header: str) -> bytes:
    """Return what a header `Authorization` says, or b"" if it is not for Basic, or is malformed."""
    scheme, _, encoded = header.partition(" ")
    try:
        return b64decode(encoded.strip(), validate=True) if scheme == "Basic" else b""
    except (binascii.Error, ValueError):
        return b""


def _digest(text: bytes) -> bytes:
    """Return a digest, so that comparing does not show how long a login is."""
    return hashlib.sha256(text).digest()
