"""What a setting's text must be like. Each raises, says what was expected, and never quotes it."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from marshmallow import ValidationError

from .language import LANGUAGES
from .redis_url import parse_redis_url

API_URL = "https://apis.harasocial.com/social/messages.json"


def may_be_token(text: str) -> bool:
    """Return whether a request's header can carry `text` as a bearer token."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def check_token(token: str) -> None:
    """Accept a bearer token, or nothing."""
    if token and not may_be_token(token):
        raise ValidationError("must be the bearer token alone: printable ASCII without blanks")


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL, or None if it is none."""
    try:
        parts = urlsplit(url)
        # The port is read only when it is asked for: after a `/` in a password, it is none.
        _ = parts.port
    except ValueError:
        return None
    return parts if url.isprintable() and " " not in url else None


def check_safe_url(url: str) -> None:
    """Accept a URL that the token may travel to."""
    parts = _split(url)
    host = parts.hostname if parts else None
    if not parts or not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ValidationError(f"must be a URL such as {API_URL}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValidationError("must begin with https://, or the token travels in the open")


def is_loopback(host: str) -> bool:
    """Return whether only programs of this host can reach `host`, a name or an address."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_redis_url(url: str) -> None:
    """Accept a URL of Redis."""
    try:
        parse_redis_url(url)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def check_namespace(name: str) -> None:
    """Accept a namespace of keys."""
    if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValidationError("must be letters, digits, - and _ only")


def check_proxy_url(url: str) -> None:
    """Accept the URL of a proxy, or nothing."""
    parts = _split(url)
    if url and not (parts and parts.scheme in ("http", "https") and parts.hostname):
        raise ValidationError("must be a URL such as http://proxy:3128")


def check_host(host: str) -> None:
    """Accept an address to listen on."""
    if not host or not host.isprintable() or any(c in host for c in " /@[]"):
        raise ValidationError("must be an address or name of this host, such as 127.0.0.1 or ::")


def check_log_format(name: str) -> None:
    """Accept `text` or `json`."""
    if name not in ("text", "json"):
        raise ValidationError("must be text or json")


def check_language(name: str) -> None:
    """Accept the short name of a language."""
    if name not in LANGUAGES:
        raise ValidationError("must be en (English) or vi (Vietnamese)")


def check_user_and_password(text: str) -> None:
    """Accept `user:password`, or nothing."""
    user, _, password = text.partition(":")
    if text and not (user and password and text.isprintable()):
        raise ValidationError("must be user:password")
