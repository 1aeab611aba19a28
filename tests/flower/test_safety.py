"""The check of Flower's options: a table of addresses, logins and passwords."""

from __future__ import annotations

import pytest
from harasocial_dispatch.flower.safety import refusal
from harasocial_dispatch.schemas.setting_checks import is_loopback

GOOD = "operator:vM3kq-Tz81-pLx-9dWe"


def refused(address: str = "127.0.0.1", *credentials: str, **options: object) -> str:
    values = {"unix_socket": "", "has_other_login": False, **options}
    return refusal(address=address, credentials=credentials, **values) or ""  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "[::1]", "localhost"])
def test_a_loopback_address_needs_no_login(address: str) -> None:
    """Only programs on the same host can reach it."""
    assert is_loopback(address)
    assert refused(address) == ""


@pytest.mark.parametrize(
    "address", ["", "0.0.0.0", "::", "10.0.0.5", "flower.example", "127.0.0.1.nip.io"]
)
def test_any_other_address_needs_one(address: str) -> None:
    """The error names the variable to set, and the alternative."""
    reason = refused(address)
    assert "HARASOCIAL_FLOWER_BASIC_AUTH" in reason
    assert "--address=127.0.0.1" in reason
    assert refused(address, GOOD) == ""
    assert refused(address, has_other_login=True) == ""


def test_a_unix_socket_needs_no_login() -> None:
    """The permissions of the file control the access."""
    assert refused("", unix_socket="/run/flower.sock") == ""


@pytest.mark.parametrize("password", ["Tz81-pLx", "0123456789abcd"])
def test_a_short_password_is_rejected(password: str) -> None:
    """The rule applies to every address, because a proxy can be added later."""
    reason = refused("127.0.0.1", f"operator:{password}")
    assert f"{len(password)} characters; it needs at least 15" in reason
    assert password not in reason
    assert refused("127.0.0.1", f"operator:{password:x<15}") == ""


@pytest.mark.parametrize(
    "credentials", ["operator", ":vM3kq-Tz81-pLx-9dWe", "operator:", "ông:vM3kq-Tz81-pLx-9dWe"]
)
def test_a_malformed_login_is_rejected(credentials: str) -> None:
    """Flower itself would accept it, and then reject every login or fail at each page."""
    assert refused("127.0.0.1", credentials)


def test_each_of_several_logins_is_checked() -> None:
    """One weak login is enough for an attacker."""
    assert refused("0.0.0.0", GOOD, "second:password")
