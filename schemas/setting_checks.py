"""Validate the texts of settings. The errors name what was expected and never quote the text."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

from marshmallow import ValidationError

from .language import LANGUAGES
from .redis_url import parse_redis_url

API_URL = "https://apis.harasocial.com/social/messages.json"


def may_be_token(text: str) -> bool:
    """Return whether `text` can be sent as a bearer token in a request header."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def check_token(token: str) -> None:
    """Accept a bearer token, or an empty text."""
    if token and not may_be_token(token):
        raise ValidationError("must be only the bearer token: printable ASCII without spaces")


def _split(url: str) -> SplitResult | None:
    """Return the parts of a URL, or None if `url` is not valid."""
    try:
        parts = urlsplit(url)
        # urlsplit parses the port only here. It is not a number if the password contains a `/`.
        _ = parts.port
    except ValueError:
        return None
    return parts if url.isprintable() and " " not in url else None


def check_safe_url(url: str) -> None:
    """Accept a URL to which the token can be sent safely: https, or this host."""
    parts = _split(url)
    host = parts.hostname if parts else None
    if not parts or not host or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ValidationError(f"must be a URL such as {API_URL}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValidationError("must begin with https://, so that the token is encrypted")


def is_loopback(host: str) -> bool:
    """Return whether `host`, a name or an address, is a loopback address of this host."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_redis_url(url: str) -> None:
    """Accept the URL of a Redis server."""
    try:
        parse_redis_url(url)
    except ValueError as error:
        raise ValidationError(str(error)) from None


def check_namespace(name: str) -> None:
    """Accept a namespace for keys."""
    if not name or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise ValidationError("must be letters, digits, - and _ only")


def check_proxy_url(url: str) -> None:
    """Accept the URL of a proxy, or an empty text."""
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
    """Accept `en` or `vi`."""
    if name not in LANGUAGES:
        raise ValidationError("must be en (English) or vi (Vietnamese)")


def check_user_and_password(text: str) -> None:
    """Accept `user:password`, or an empty text."""
    user, _, password = text.partition(":")
    if text and not (user and password and text.isprintable()):
        raise ValidationError("must be user:password")
