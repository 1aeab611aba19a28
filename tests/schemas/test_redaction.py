"""Removal of the token from a reply's texts, in every encoding (promise 9)."""

from __future__ import annotations

import base64
import html
import json
import re
import string
import textwrap
import time
from collections.abc import Callable
from urllib.parse import quote, unquote

import pytest
from harasocial_dispatch.schemas import parse_reply
from hypothesis import example, given
from hypothesis import strategies as st
from support.harness import present

TOKEN = "EAABwzLixnjYBO7aZC3tQ-f9_kD.LxR2m~Vp+8sH/0u=="
#: Length of the parts of the token that must not remain.
PART_CHARACTERS = 10

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "upper case": str.upper,
    "lower case": str.lower,
    "percent-encoded": lambda text: quote(text, safe=""),
    "percent-encoded throughout": lambda text: "".join(f"%{ord(c):02x}" for c in text),
    "percent-encoded, unicode": lambda text: "".join(f"%u{ord(c):04X}" for c in text),
    "quoted-printable throughout": lambda text: "".join(f"={ord(c):02X}" for c in text),
    "JSON string": json.dumps,
    "JSON escapes": lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    "JavaScript escapes": lambda text: "".join(f"\\x{ord(c):02X}" for c in text),
    "braced escapes": lambda text: "".join(f"\\u{{{ord(c):x}}}" for c in text),
    "octal escapes": lambda text: "".join(f"\\{ord(c):03o}" for c in text),
    "backslashes": lambda text: re.sub(r"(\W)", r"\\\1", text),
    "decimal entities": lambda text: "".join(f"&#{ord(c)};" for c in text),
    "hex entities": lambda text: "".join(f"&#x{ord(c):X};" for c in text),
    "entities without semicolons": lambda text: "".join(f"&#{ord(c)}" for c in text),
    "HTML": lambda text: html.escape(text).replace(".", "&period;").replace("_", "&lowbar;"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "URL-safe base64": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "wrapped base64": lambda text: base64.encodebytes(text.encode() * 2).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"Bearer {text}".encode()).decode(),
    "base64 of a login": lambda text: base64.b64encode(f"ab:{text}, c".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex with colons": lambda text: text.encode().hex(":").upper(),
    "list of bytes": lambda text: json.dumps(list(text.encode())),
    "list of characters": lambda text: json.dumps(list(text)),
    "over several lines": lambda text: "\n".join(textwrap.wrap(text, 7)),
    "over several lines of JSON": lambda text: json.dumps("\r\n".join(textwrap.wrap(text, 7))),
    "with hyphens": lambda text: "-".join(textwrap.wrap(text, 4)),
    "with blanks": " ".join,
    "with line breaks of HTML": lambda text: "<br/>".join(textwrap.wrap(text, 5)),
    "with word breaks of HTML": lambda text: "<wbr>".join(textwrap.wrap(text, 5)),
    "with zero-width spaces": "\u200b".join,
    "as a tag": lambda text: f"<{text}>",
}
#: Encodings that can be combined.
ESCAPES = [
    name
    for name in ENCODINGS
    if re.search("percent|quoted|JSON string|escapes|entities|backslash", name)
]


def error(message: object) -> tuple[str, str]:
    """Return the kept error_code and error_message of a reply with `message` in both fields."""
    body = json.dumps({"has_error": True, "error_code": message, "error_message": message})
    reply = present(parse_reply(body.encode(), secret=TOKEN))
    return reply.error_code or "", reply.error_message or ""


def readings(text: str) -> set[str]:
    """Return the results of common decoders for a text."""
    found = {text}
    for _ in range(3):
        for each in list(found):
            found |= {
                unquote(each),
                html.unescape(each),
                re.sub(r"[=%]([0-9A-Fa-f]{2})", _chr, each),
            }
            found.add(
                re.sub(
                    r"\\+u\{?0*([0-9A-Fa-f]{2})\}?|%u00([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})",
                    _chr,
                    each,
                )
            )
            found.add(re.sub(r"\\+([nr])", "", each))
            found.add(re.sub(r"<w?br/?>", "", each))
    for each in list(found):
        for run in re.findall(r"[A-Za-z0-9+/_-]{12,}", each + " " + re.sub(r"\s", "", each)):
            for start in range(4):
                octets = run[start:].replace("-", "+").replace("_", "/").encode()
                octets = octets[: len(octets) // 4 * 4]
                found.add(base64.b64decode(octets).decode("latin-1"))
        for run in re.findall("(?:[0-9a-fA-F]{2}){8,}", each.replace(":", "")):
            found.add(bytes.fromhex(run).decode("latin-1"))
    return found


def _chr(match: re.Match[str]) -> str:
    return chr(int(next(filter(None, match.groups())), 16))


def fold(text: str) -> str:
    return re.sub("[^a-z0-9]", "", text.lower())


def revealed(text: str) -> set[str]:
    """Return the parts of the token that `text` reveals."""
    secret = fold(TOKEN)
    parts = {secret[i : i + PART_CHARACTERS] for i in range(len(secret) - PART_CHARACTERS + 1)}
    folded = [fold(reading) for reading in readings(text)]
    return {part for part in parts if any(part in reading for reading in folded)}


@pytest.mark.parametrize("name", ENCODINGS)
def test_no_encoding_of_the_token_is_kept(name: str) -> None:
    """The whole token is removed, and the rest of the message is kept."""
    for before, after in [("", ""), ("Refused: Bearer ", " is not valid"), ("x" * 480 + " ", "")]:
        spelled = ENCODINGS[name](TOKEN)
        for text in error(before + spelled + after):
            assert revealed(text) == set(), text
        message = error(before + spelled + after)[1]
        assert message.startswith((before[:400], "[token]"))
        assert after in message


@pytest.mark.parametrize(
    "token", ["_-aBcDeFgHiJkLmN-_", "==aBcDeFgHiJkLmN", "-" * 12, "{[(<>)]}abc"]
)
@pytest.mark.parametrize("spell", [str, json.dumps, lambda text: quote(text, safe="")])
def test_punctuation_of_the_token_is_removed(token: str, spell: Callable[[str], str]) -> None:
    """Tokens may have punctuation at the ends, or consist mostly of punctuation."""
    reply = {"has_error": True, "error_message": f"Bad token {spell(token)}, sorry"}
    found = present(parse_reply(json.dumps(reply).encode(), secret=token))
    assert (found.error_message or "").replace('"', "") == "Bad token [token], sorry"


@pytest.mark.parametrize("name", ENCODINGS)
def test_no_part_of_the_token_is_kept(name: str) -> None:
    """The API may cut the token before or after encoding, at the start, at the end, or both."""
    half = len(TOKEN) // 2
    for part in (TOKEN[:half], TOKEN[half:], TOKEN[10:30]):
        assert revealed(error(f"Bad: {ENCODINGS[name](part)}…")[1]) == set()
    spelled = ENCODINGS[name](TOKEN)
    for cut in (spelled[: len(spelled) // 2], spelled[len(spelled) // 2 :]):
        assert revealed(error(f"Bad: {cut}")[1]) == set()


@given(
    st.sampled_from(list(ENCODINGS)),
    st.lists(st.sampled_from(ESCAPES), max_size=2),
    st.text(max_size=30),
    st.text(max_size=30),
    st.integers(0, 25),
    st.integers(20, 60),
)
@example("JSON string", ["JSON string", "JSON string"], "", "", 0, 60)
@example("base64", ["percent-encoded"], "a", "", 0, 60)
def test_no_combination_of_encodings_reveals_the_token(
    inner: str, outer: list[str], before: str, after: str, start: int, end: int
) -> None:
    """Escapes of another encoding, of any part, with any text around it."""
    part = TOKEN[start:end]
    for name in (inner, *outer):
        part = ENCODINGS[name](part)
    for text in error(before + part + after):
        assert revealed(text) == set(), text


@pytest.mark.parametrize("cut", range(440, 500, 7))
def test_a_shortened_message_contains_no_part_of_the_token(cut: int) -> None:
    """The token is removed before the text is shortened to 500 characters."""
    for spell in ENCODINGS.values():
        assert revealed(error("m" * cut + " " + spell(TOKEN))[1]) == set()


@given(st.text(string.ascii_letters + string.digits + " .,:()#/%&=\\_-", max_size=600))
def test_other_texts_are_not_changed(text: str) -> None:
    """Escapes in other texts are not changed either."""
    body = json.dumps({"has_error": True, "error_message": text}).encode()
    assert parse_reply(body, secret=TOKEN) == parse_reply(body)


@pytest.mark.parametrize(
    "message",
    [
        '(#100) Param recipient[id] must be a valid ID string (e.g., "123")',
        "Người dùng không nhận được tin nhắn & phản hồi 100%25",
        "Error validating access token: Session has expired on 2026-11-25. fbtrace_id=A1b2C3d4E5f",
    ],
)
def test_ordinary_messages_are_not_changed(message: str) -> None:
    """Messages must stay readable."""
    assert error(message)[1] == message


@pytest.mark.parametrize("piece", ["%25", "\\\\", "&#37;", TOKEN[:9], "a", "=3D", "<b>"])
def test_the_largest_reply_is_redacted_quickly(piece: str) -> None:
    """64 KiB of the slowest texts: redaction must not delay a worker's other calls."""
    body = json.dumps(
        {"has_error": True, "error_message": piece * (60_000 // len(json.dumps(piece)))}
    ).encode()
    began = time.process_time()
    parse_reply(body, secret=TOKEN)
    assert time.process_time() - began < 0.25
