"""Decides whether Flower may start with its options: never open to others without a login. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.setting_checks import is_loopback

#: What NIST SP 800-63B asks of a password that is the only factor. No list of common passwords is
#: kept here; `gate` limits how fast they can be tried.
MIN_PASSWORD_CHARACTERS = 15


def refusal(
    *,
    address: str,
    unix_socket: str,
    credentials: Sequence[str],
    has_other_login: bool,
) -> str | None:
    """Return why Flower must not start like this, for people, or None if it may.

    Args:
        address: what it is to listen on; "" means every address of this host.
        unix_socket: the path of a socket to listen on in place of an address, or "".
        credentials: each `user:password`.
        has_other_login: whether another kind of login (OAuth) is set up.
    """
    if not (credentials or has_other_login or unix_socket or is_loopback(address)):
        where = address or "every address of this host"
        return (
            f"Flower would listen on {where} without a login, and whoever reaches it could read "
            "whom you write to and send messages again. Set HARASOCIAL_FLOWER_BASIC_AUTH to "
            "user:password, or listen on this host alone: --address=127.0.0.1"
        )
    for each in credentials:
        fault = _fault(each)
        if fault:
            return f"the login of Flower (HARASOCIAL_FLOWER_BASIC_AUTH or --basic-auth) {fault}"
    return None


def _fault(credentials: str) -> str | None:
    user, colon, password = credentials.partition(":")
    if not (user and colon and password):
        return "must be user:password"
    if not (credentials.isascii() and credentials.isprintable()):
        return "must be plain letters, digits and signs: browsers spell others differently"
    if len(password) < MIN_PASSWORD_CHARACTERS:
        return (
            f"has a password of {len(password)} characters; it needs at least "
            f"{MIN_PASSWORD_CHARACTERS}, for example from: openssl rand -base64 24"
        )
    return None
