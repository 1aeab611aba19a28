"""Parsing times of the command line, and formatting local times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from harasocial_dispatch.cli.input.times import parse_time
from harasocial_dispatch.cli.output.times import local
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _in_hanoi(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45s", "2026-03-10T11:59:15+00:00"),
        ("30m", "2026-03-10T11:30:00+00:00"),
        ("2h", "2026-03-10T10:00:00+00:00"),
        ("1.5h", "2026-03-10T10:30:00+00:00"),
        ("1d", "2026-03-09T12:00:00+00:00"),
        ("1d12h", "2026-03-09T00:00:00+00:00"),
        ("2w", "2026-02-24T12:00:00+00:00"),
        (" 2h ", "2026-03-10T10:00:00+00:00"),
        ("2026-01-31", "2026-01-31T00:00:00+07:00"),
        ("2026-01-31T09:30", "2026-01-31T09:30:00+07:00"),
        ("2026-01-31 09:30:15", "2026-01-31T09:30:15+07:00"),
        ("2026-01-31T09:30:00Z", "2026-01-31T09:30:00+00:00"),
        ("2026-01-31T09:30:00-05:00", "2026-01-31T09:30:00-05:00"),
    ],
)
def test_a_time_is_a_duration_or_iso_8601(text: str, expected: str) -> None:
    """A duration counts back from now. A time without a zone is local time."""
    parsed = parse_time(text, now=NOW)
    assert parsed == datetime.fromisoformat(expected)
    assert parsed.tzinfo is not None


def test_a_duration_ahead_goes_into_the_future() -> None:
    """`--send-at 2h` is in two hours."""
    assert parse_time("2h", now=NOW, ahead=True) == NOW + timedelta(hours=2)


def test_the_end_of_a_day_is_its_last_moment() -> None:
    """`--until 2026-01-31` includes the whole day, but not the next one."""
    end = parse_time("2026-01-31", now=NOW, end_of_day=True)
    next_day = parse_time("2026-02-01", now=NOW)
    assert timedelta(0) < next_day - end < timedelta(seconds=1)


@pytest.mark.parametrize(
    "text",
    ["", "2", "2x", "-2h", "h", "yesterday", "2026-13-01", "9" * 400 + "d", "99999999999d", "1..2h",
     "0001-01-01", "9999-12-31T23:59:59-12:00", "２h"],
)  # fmt: skip
def test_invalid_times_are_rejected_with_the_expected_form(text: str) -> None:
    """The message has examples of valid times."""
    with pytest.raises(ValueError, match="expected a duration such as 30m"):
        parse_time(text, now=NOW)


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    """Any text returns an aware time or raises a ValueError."""
    with suppress(ValueError):
        assert parse_time(text, now=NOW).tzinfo is not None


def test_times_are_printed_in_local_time() -> None:
    """Noon in UTC is 19:00 in Hanoi. A missing time is an empty text."""
    assert local(NOW) == "2026-03-10 19:00:00"
    assert local(None) == ""
