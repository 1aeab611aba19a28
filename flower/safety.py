"""Check that Flower is never reachable from other hosts without a login. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..schemas.setting_checks import is_loopback

#: The minimum length in NIST SP 800-63B for a password as the only factor. Common passwords are not
#: checked, but `gate` limits the rate of guesses.
MIN_PASSWORD_CHARACTERS = 15


def refusal(
    *,
    address: str,
    unix_socket: str,
    credentials: Sequence[str],
    has_other_login: bool,
) -> str | None:
    """Return why these options are unsafe, or None if they are safe.

    Args:
        address: the address to listen on; "" means every address of this host.
        unix_socket: the path of a socket to listen on instead of an address, or "".
        credentials: a list of `user:password`.
        has_other_login: whether another login (OAuth) is configured.
    """
    if not (credentials or has_other_login or unix_socket or is_loopback(address)):
        where = address or "every address of this host"
        return (
            f"Flower would listen on {where} without a login, and other users could read "
            "recipients and send messages again. Set HARASOCIAL_FLOWER_BASIC_AUTH to "
            "user:password, or listen only on this host: --address=127.0.0.1"
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
        return "must be printable ASCII, because browsers encode other characters differently"
    if len(password) < MIN_PASSWORD_CHARACTERS:
        return (
            f"has a password of {len(password)} characters; it needs at least "
            f"{MIN_PASSWORD_CHARACTERS}, for example from: openssl rand -base64 24"
        )
    return None
