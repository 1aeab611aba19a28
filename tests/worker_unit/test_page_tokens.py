"""The tokens of pages, and changes of the tokens file."""

from __future__ import annotations

import json
import logging
import os
import string
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harasocial_dispatch.schemas import Settings, SettingsError
from harasocial_dispatch.worker import tokens
from harasocial_dispatch.worker.tokens import Tokens, fingerprint_of, read_tokens
from hypothesis import given
from hypothesis import strategies as st

SECRET = "EAAB-s3cr3t.token"


@dataclass
class Clock:
    """A monotonic clock that a test moves."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "tokens.json"
    made.write_text(json.dumps({"500": "token-of-500"}))
    return made


def write(file: Path, content: Any, *, age: int) -> None:
    """Write the file, and set its modification time."""
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    os.utime(file, ns=(age, age))


def test_one_token_is_used_for_every_page() -> None:
    """Only TOKEN is set."""
    found = Tokens(Settings(token="common"))
    assert found.for_page("500") == found.for_page("501") == "common"


def test_the_file_names_tokens_by_page(file: Path) -> None:
    """A page that is not in the file has the common token, or none."""
    assert Tokens(Settings(tokens_file=file)).for_page("500") == "token-of-500"
    assert Tokens(Settings(tokens_file=file)).for_page("501") is None
    assert Tokens(Settings(token="common", tokens_file=file)).for_page("501") == "common"


def test_a_missing_token_stops_the_start() -> None:
    """The message names both variables."""
    with pytest.raises(SettingsError, match=r"HARASOCIAL_TOKEN .*HARASOCIAL_TOKENS_FILE"):
        Tokens(Settings())


def test_a_changed_file_is_read_again_after_a_second(file: Path, clock: Clock) -> None:
    """The file is checked once per second, not for each call."""
    found = Tokens(Settings(tokens_file=file))
    write(file, {"500": "new-token"}, age=1)
    clock.seconds += 0.9
    assert found.for_page("500") == "token-of-500"
    clock.seconds += 0.2
    assert found.for_page("500") == "new-token"


def test_an_unchanged_file_is_not_read_again(
    file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its modification time and size are enough to detect a change."""
    found = Tokens(Settings(tokens_file=file))
    write(file, {"500": "new-token"}, age=1)
    clock.seconds += 60
    assert found.for_page("500") == "new-token"
    monkeypatch.setattr(tokens, "read_tokens", pytest.fail)
    clock.seconds += 60
    assert found.for_page("500") == "new-token"


@pytest.mark.parametrize("content", ["{", "[]", '{"500": ""}', None])
def test_an_invalid_changed_file_keeps_the_previous_tokens(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """A warning is logged. When the file is valid again, its tokens are used."""
    found = Tokens(Settings(tokens_file=file))
    if content is None:
        file.unlink()
    else:
        write(file, content, age=1)
    clock.seconds += 2
    with caplog.at_level(logging.WARNING):
        assert found.for_page("500") == "token-of-500"
    (record,) = caplog.records
    assert record.__dict__["action"] == "tokens_unreadable"
    assert "HARASOCIAL_TOKENS_FILE" in record.getMessage()
    write(file, {"500": "mended-token"}, age=2)
    clock.seconds += 2
    assert found.for_page("500") == "mended-token"


def test_reading_again_logs_no_token(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the number of tokens is logged (design promise 9)."""
    found = Tokens(Settings(tokens_file=file))
    write(file, {"500": SECRET, "501": SECRET}, age=1)
    clock.seconds += 2
    with caplog.at_level(logging.DEBUG):
        found.for_page("500")
    assert "reloaded the tokens of 2 pages" in caplog.text
    assert SECRET not in caplog.text
    assert "500" not in caplog.text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is not JSON"),
        (SECRET, "is not JSON"),
        (f'{{"500": "{SECRET}"', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (f'"{SECRET}"', "must be a JSON object of page_id: token"),
        (f'["{SECRET}"]', "must be a JSON object of page_id: token"),
        ("NaN", "must be a JSON object of page_id: token"),
        (f'{{"500": "a", "500": "{SECRET}"}}', "the page id of entry 2 is a duplicate"),
        (f'{{"500": "a", "{SECRET}": "501"}}', "the page id of entry 2 must be a string of digits"),
        (f'{{"{SECRET}": 500}}', "the page id of entry 1 must be a string of digits"),
        (f'{{"": "{SECRET}"}}', "the page id of entry 1 must be a string of digits"),
        (f'{{"٥": "{SECRET}"}}', "the page id of entry 1 must be a string of digits"),
        (f'{{"500": "Bearer {SECRET}"}}', "the token of entry 1 must be printable ASCII"),
        (f'{{"500": "{SECRET}\\n"}}', "the token of entry 1 must be printable ASCII"),
        (f'{{"500": "{SECRET}é"}}', "the token of entry 1 must be printable ASCII"),
        (f'{{"500": ["{SECRET}"]}}', "the token of entry 1 must be printable ASCII"),
        (f'{{"500": {{"a": "{SECRET}"}}}}', "the token of entry 1 must be printable ASCII"),
        ('{"500": ""}', "the token of entry 1 must be printable ASCII"),
        ('{"500": null}', "the token of entry 1 must be printable ASCII"),
        ('{"500": 1}', "the token of entry 1 must be printable ASCII"),
    ],
)
def test_an_invalid_file_stops_the_start_and_is_not_quoted(
    tmp_path: Path, content: str | bytes, expected: str
) -> None:
    """The error has the variable and the entry's number. Any text in the file may be a token."""
    file = tmp_path / "tokens.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        Tokens(Settings(tokens_file=file))
    message = str(caught.value)
    assert message.startswith(f"HARASOCIAL_TOKENS_FILE, {file}")
    assert expected in message
    assert SECRET not in message


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, name: str) -> None:
    """The file is missing, or it is a directory."""
    with pytest.raises(SettingsError, match="HARASOCIAL_TOKENS_FILE cannot be read: "):
        Tokens(Settings(tokens_file=tmp_path / name))


def test_a_file_may_have_no_pages(tmp_path: Path) -> None:
    """Tokens can be added later."""
    file = tmp_path / "tokens.json"
    file.write_text("{}")
    assert read_tokens(file) == {}


tokens_of_any_kind = st.text(
    string.ascii_letters + string.digits + string.punctuation, min_size=1, max_size=300
)


@given(tokens_of_any_kind, tokens_of_any_kind)
def test_a_fingerprint_is_unique_and_reveals_nothing(one: str, other: str) -> None:
    """It has 16 hex digits and contains no part of the token."""
    assert (fingerprint_of(one) == fingerprint_of(other)) == (one == other)
    assert len(fingerprint_of(one)) == 16
    assert set(fingerprint_of(one)) <= set("0123456789abcdef")
    assert fingerprint_of(one) != fingerprint_of(None) == "none"
