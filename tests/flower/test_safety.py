"""Whether Flower may start: a table of addresses, logins and passwords."""

from __future__ import annotations

import secrets

import pytest
from harasocial_dispatch.schemas.setting_checks import is_loopback
from harasocial_dispatch.worker.flower.safety import is_guessable, refusal

GOOD = "operator:vM3kq-Tz81-pLx"


def refused(address: str = "127.0.0.1", *credentials: str, **options: object) -> str:
    values = {"unix_socket": "", "has_other_login": False, **options}
    return refusal(address=address, credentials=credentials, **values) or ""  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "[::1]", "localhost"])
def test_a_host_by_itself_needs_no_login(address: str) -> None:
    """Only programs of the same host reach it."""
    assert is_loopback(address)
    assert refused(address) == ""


@pytest.mark.parametrize(
    "address", ["", "0.0.0.0", "::", "10.0.0.5", "flower.example", "127.0.0.1.nip.io"]
)
def test_any_other_address_needs_one(address: str) -> None:
    """The refusal names the variable to set, and the other way out."""
    reason = refused(address)
    assert "HARASOCIAL_FLOWER_BASIC_AUTH" in reason
    assert "--address=127.0.0.1" in reason
    assert refused(address, GOOD) == ""
    assert refused(address, has_other_login=True) == ""


def test_a_unix_socket_is_this_host() -> None:
    """Whoever may open it is decided by the file."""
    assert refused("", unix_socket="/run/flower.sock") == ""


@pytest.mark.parametrize(
    "password",
    [
        "Password1234",
        "P@ssw0rd!2026",
        "changeme-changeme",
        "admin-admin-2026",
        "operator1234",
        "operatoroperator",
        "harasocial-flower",
        "123456789012",
        "098765432109",
        "111111111111",
        "abcabcabcabc",
        "qwertyuiopas",
        "abcdefghijkl",
        "!!!!????----",
        "letmein-please-1",
    ],
)
def test_a_password_that_is_tried_first_is_refused(password: str) -> None:
    """Wherever Flower listens: it may be put behind a proxy later."""
    assert "first to be guessed" in refused("127.0.0.1", f"operator:{password}")
    assert password not in refused("127.0.0.1", f"operator:{password}")


def test_a_short_password_is_refused() -> None:
    """The refusal says how long it must be."""
    assert "at least 12" in refused("127.0.0.1", "operator:Tz81-pLx")


def test_random_passwords_are_fine() -> None:
    """Of every usual kind."""
    for _ in range(200):
        for password in (
            secrets.token_hex(12),
            secrets.token_urlsafe(12),
            secrets.token_urlsafe(30),
        ):
            assert not is_guessable("operator", password), password
    for password in (
        "correct-horse-battery-staple",
        "83920184756192",
        "Tr0ub4dor&3xyz",
        "7#4!9@2$8%1^",
    ):
        assert not is_guessable("operator", password), password


@pytest.mark.parametrize(
    "credentials", ["operator", ":vM3kq-Tz81-pLx", "operator:", "ông:vM3kq-Tz81-pLx"]
)
def test_what_is_no_login_is_refused(credentials: str) -> None:
    """Flower itself would take it, and let nobody in, or fail at each page."""
    assert refused("127.0.0.1", credentials)


def test_each_of_several_logins_is_looked_at() -> None:
    """One weak one is enough for an intruder."""
    assert refused("0.0.0.0", GOOD, "second:password1234")
