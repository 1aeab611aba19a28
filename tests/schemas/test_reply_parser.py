"""The API's reply: the documented format is parsed, and every other reply is invalid."""

from __future__ import annotations

import json
import re
import string
import sys

import pytest
from harasocial_dispatch.schemas import ApiReply, parse_reply, sanitize
from hypothesis import example, given
from hypothesis import strategies as st
from support.harness import present

#: The example of the API page, word for word.
DOCUMENTED = b"""{
"data": {
"success": true
},
"has_error": false,
"error_code": null,
"error_message": null
}"""
SECRET = "EAAB-secret_token.1234"


def refusal(**fields: object) -> bytes:
    return json.dumps({"has_error": True, **fields}).encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (DOCUMENTED, ApiReply(has_error=False, success=True)),
        (
            b'{"has_error": false, "data": {"success": false}}',
            ApiReply(has_error=False, success=False),
        ),
        (b'{"has_error": false, "data": {}}', ApiReply(has_error=False)),
        (b'{"has_error": false, "data": {"success": null}}', ApiReply(has_error=False)),
        (b'{"has_error": false, "data": null}', ApiReply(has_error=False)),
        (b'{"has_error": false}', ApiReply(has_error=False)),
        (
            b'{"has_error": false, "data": {"success": true, "id": 5}, "more": []}',
            ApiReply(has_error=False, success=True),
        ),
        (
            b'{"has_error": true, "data": null, "error_code": "10/2018278", "error_message": "x"}',
            ApiReply(has_error=True, error_code="10/2018278", error_message="x"),
        ),
        (refusal(error_code=190), ApiReply(has_error=True, error_code="190")),
        (refusal(error_code=0), ApiReply(has_error=True, error_code="0")),
        (refusal(error_code=1.5), ApiReply(has_error=True, error_code="1.5")),
        (refusal(error_code=True), ApiReply(has_error=True, error_code="true")),
        (refusal(error_code=["a", "ơ"]), ApiReply(has_error=True, error_code='["a", "ơ"]')),
        (refusal(error_code="  190 \n"), ApiReply(has_error=True, error_code="190")),
        (refusal(error_code="", error_message=" "), ApiReply(has_error=True)),
        *(
            (
                refusal(error_code=code, error_message=message),
                ApiReply(has_error=True, error_code=found, error_message=message),
            )
            for code, message, found in [
                (None, "(#10) Not allowed", "10"),
                ("", "(#10/2018278) Too late", "10/2018278"),
                (" ", "(#-1)", "-1"),
                ("551", "(#10) Not allowed", "551"),
                (None, "Not allowed (#10)", None),
                (None, "(10) Not allowed", None),
                (None, "(#10", None),
                (None, "(#10/) Not allowed", None),
                (None, "(#ten) Not allowed", None),
                (None, "(#12345678901) Not allowed", None),
                (None, "(#١٠) Not allowed", None),
            ]
        ),
        (refusal(error_code="\x00\x1b"), ApiReply(has_error=True)),
        (
            refusal(error_message="red \x1b[31m\u202e\ud83d line\r\nnext"),
            ApiReply(has_error=True, error_message="red  [31m   line  next"),
        ),
        (DOCUMENTED.decode().encode("utf-16"), ApiReply(has_error=False, success=True)),
        (b"\xef\xbb\xbf" + DOCUMENTED, ApiReply(has_error=False, success=True)),
    ],
)
def test_the_documented_format_is_parsed(body: bytes, expected: ApiReply) -> None:
    """Missing fields, additional fields, and codes that are not strings are accepted."""
    assert parse_reply(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"<html><h1>502 Bad Gateway</h1></html>",
        b"null",
        b"true",
        b"[]",
        b'"has_error"',
        b"{}",
        b'{"data": {"success": true}}',
        b'{"has_error": null, "data": {"success": true}}',
        b'{"has_error": "false", "data": {"success": true}}',
        b'{"has_error": 0, "data": {"success": true}}',
        b'{"has_error": false, "data": true}',
        b'{"has_error": false, "data": []}',
        b'{"has_error": false, "data": ""}',
        b'{"has_error": false, "data": {"success": "true"}}',
        b'{"has_error": false, "data": {"success": 1}}',
        b'{"has_error": true, "has_error": false, "data": {"success": true}}',
        b'{"has_error": false, "data": {"success": false, "success": true}}',
        b'{"has_error": false, "data": {"success": true}, "data": {"success": true}}',
        b'{"has_error": true, "error_code": NaN}',
        b'{"has_error": true, "error_code": -Infinity}',
        b'{"has_error": false, "data": {"success": true}} trailing',
        b'{"has_error": false, "data": {"success": true}',
        b'{"has_error": true, "error_code": ' + b"9" * 10_000 + b"}",
        b'{"has_error": true, "error_message": "\xff\xfe"}',
        b'{"has_error": true, "error_message": "line\nbreak"}',
        b"\x00" * 100,
        b"[" * 60_000,
        b'{"a":' * 12_000,
        b'{"has_error": true, "error_code": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_any_other_format_is_an_invalid_reply(body: bytes) -> None:
    """Ambiguous JSON is invalid."""
    assert parse_reply(body) is None


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_an_invalid_reply(opening: bytes) -> None:
    """At some depths, a value can be parsed but not serialized."""
    closing = b"]" if opening == b"[" else b"}"
    for depth in range(sys.getrecursionlimit() - 400, sys.getrecursionlimit()):
        nested = opening * depth + b"1" + closing * depth
        found = parse_reply(b'{"has_error": true, "error_code": ' + nested + b"}")
        assert found is None or len(found.error_code or "") <= 64


def test_a_long_error_is_shortened() -> None:
    """64 characters of a code and 500 of a message are kept."""
    found = parse_reply(refusal(error_code="c" * 1_000_000, error_message="m" * 1_000_000))
    assert found == ApiReply(
        has_error=True, error_code="c" * 63 + "…", error_message="m" * 499 + "…"
    )


@pytest.mark.parametrize(
    ("echo", "expected"),
    [
        (f"bad token {SECRET}", "bad token [token]"),
        (f"{SECRET}{SECRET}", "[token][token]"),
        (f"x{SECRET}y", "x[token]y"),
        ({"Authorization": f"Bearer {SECRET}"}, '{"Authorization": "Bearer [token]"}'),
        ("m" * 490 + SECRET, "m" * 490 + "[token]"),
        ("m" * 495 + SECRET, "m" * 495 + "[tok…"),
    ],
)
def test_an_echoed_token_is_removed(echo: object, expected: str) -> None:
    """It is removed completely, even at the point where the text is cut (design promise 9)."""
    found = parse_reply(refusal(error_code=SECRET, error_message=echo), secret=SECRET)
    assert found == ApiReply(has_error=True, error_code="[token]", error_message=expected)


secrets = st.text(
    string.ascii_letters + string.digits + string.punctuation, min_size=8, max_size=40
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=2_000), st.none() | secrets)
def test_any_bytes_are_a_reply_or_invalid(body: bytes, secret: str | None) -> None:
    """Parsing never raises."""
    assert isinstance(parse_reply(body, secret=secret), (ApiReply, type(None)))


@given(
    st.fixed_dictionaries(
        {"has_error": st.booleans() | json_values},
        optional={
            "data": st.fixed_dictionaries({"success": st.booleans() | json_values}) | json_values,
            "error_code": json_values,
            "error_message": json_values,
        },
    )
)
def test_the_texts_of_any_reply_are_safe_to_show(reply: dict[str, object]) -> None:
    """They are printable, on one line, limited in length, and never blank."""
    found = parse_reply(json.dumps(reply).encode())
    for text, limit in (
        (found.error_code, 64) if found else (None, 0),
        (found.error_message, 500) if found else (None, 0),
    ):
        assert text is None or (text.isprintable() and 0 < len(text.strip()) <= limit)


CODE = re.compile(r"-?[0-9]{1,10}(/[0-9]{1,10})?", re.ASCII)


@given(
    st.text(st.characters())
    | st.from_regex(r"\A\(#-?[0-9]{1,12}(/[0-9]{0,3})?\)? ?", fullmatch=False)
)
def test_a_message_has_a_code_or_none(message: str) -> None:
    """Only text between `(#` and `)` at the beginning is a code."""
    found = present(parse_reply(refusal(error_code=None, error_message=message)))
    if found.error_code is not None:
        assert CODE.fullmatch(found.error_code)
        assert (found.error_message or "").startswith(f"(#{found.error_code})")


@given(secrets, st.data())
@example("]xxxxxxx", None)
def test_a_token_is_removed_from_any_text(secret: str, data: st.DataObject | None) -> None:
    """The text around it may even contain parts of the token."""
    if data is None:
        echo = "]" + "xxxxxxx" * 5
    else:
        pieces = st.sampled_from([secret, secret[:4], secret[4:], secret[1:], secret[:-1]])
        echo = "".join(data.draw(st.lists(pieces | st.text(max_size=5), max_size=6)))
    for body in (refusal(error_message=echo), refusal(error_code=echo, error_message=[echo])):
        found = present(parse_reply(body, secret=secret))
        for text in (found.error_code, found.error_message):
            assert secret not in (text or "") or secret in "[token]"


@given(st.text(st.characters(), max_size=60), st.integers(1, 50))
@example("\x1b[2J", 3)
@example("\ud800\udfff", 1)
def test_sanitized_text_is_one_printable_line_within_the_limit(text: str, limit: int) -> None:
    """Text that is already safe is not changed."""
    found = sanitize(text, limit)
    assert found.isprintable()
    assert len(found) <= limit
    assert sanitize(found, limit) == found
    if text.isprintable() and len(text) <= limit:
        assert found == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12345", "12345"),
        ("123456", "1234…"),
        ("1234\n", "1234 "),
        ("đơn hàng", "đơn …"),
        ("\x9b31m", " 31m"),
    ],
)
def test_shortened_text_ends_with_a_mark(text: str, expected: str) -> None:
    """The limit here is five characters."""
    assert sanitize(text, 5) == expected
