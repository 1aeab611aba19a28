"""Whether Flower may start as told: never open to others without a good password. Pure."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from ...schemas.setting_checks import is_loopback

#: Characters of a password, at least.
MIN_PASSWORD_CHARACTERS = 12
#: Different characters in it, at least.
_MIN_DIFFERENT = 5

#: Words that passwords which many people have are made of.
_COMMON_WORDS = (
    "abcd abcdef abcdefg abcdefgh admin administrator asdf asdfgh azerty baseball celery change "
    "changeit changeme changethis chatbot default demo dragon example facebook flower football "
    "guest harasocial haravan hello iloveyou iloveu letmein login lovely master messenger monkey "
    "ninja pass passw password passwort please princess qazwsx qwer qwert qwerty qwertyuiop root "
    "sample secret secure security shadow star starwars sunshine super superman test testing this "
    "trustno user welcome whatever worker your zxcvbn"
)
_COMMON = "|".join(sorted(_COMMON_WORDS.split(), key=len, reverse=True))
#: Letters that must be left of a password without these, unless it has a long number.
_MIN_LETTERS = 4
#: Digits and signs that stand for letters in such passwords.
_LOOKALIKES = str.maketrans("013457@$!", "oieastasi")
_RUNS = (string.ascii_lowercase, string.digits * 2, "qwertyuiopasdfghjklzxcvbnm")


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
            f"has a password of {len(password)} characters; take at least "
            f"{MIN_PASSWORD_CHARACTERS}, such as from: openssl rand -base64 24"
        )
    if is_guessable(user, password):
        return (
            "has a password that is among the first to be guessed; take another, such as from: "
            "openssl rand -base64 24"
        )
    return None


def is_guessable(user: str, password: str) -> bool:
    """Return whether a password is made of what is tried first: common words, runs, the user."""
    plain = password.casefold()
    if len(set(plain)) < _MIN_DIFFERENT:
        return True
    words = re.compile(f"{re.escape(user.casefold())}|{_COMMON}")
    for spelling in (plain, plain.translate(_LOOKALIKES)):
        rest, found = words.subn("", spelling)
        letters = re.sub("[^a-z]", "", rest)
        if found and len(letters) < _MIN_LETTERS and not _has_long_number(plain):
            return True
    return any(_is_part(plain, run) or _is_part(plain, run[::-1]) for run in _RUNS)


def _has_long_number(text: str) -> bool:
    """Return whether there are digits enough to make up for a lack of words."""
    digits = re.sub("[^0-9]", "", text)
    return len(digits) >= MIN_PASSWORD_CHARACTERS and not any(
        _is_part(digits, run) or _is_part(digits, run[::-1]) for run in _RUNS
    )


def _is_part(text: str, run: str) -> bool:
    return text in run * (len(text) // len(run) + 2)
