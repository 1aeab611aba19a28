"""`Retry-After`: seconds or a date. A server may send any text."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from harasocial_dispatch.worker.outcome.retry_after import parse_retry_after
from hypothesis import example, given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2.0", 2.0),
        ("2", 2.0),
        ("0", 0.0),
        ("0.25", 0.25),
        (" 30 ", 30.0),
        ("-5", 0.0),
        ("86400", 86_400.0),
        ("1e3", 1000.0),
        ("Sat, 31 Jan 2026 09:30:10 GMT", 10.0),
        ("Saturday, 31-Jan-26 09:30:10 GMT", 10.0),
        ("Sat Jan 31 09:30:10 2026", 10.0),
        ("Sat, 31 Jan 2026 16:30:10 +0700", 10.0),
        ("Sat, 31 Jan 2026 09:29:50 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_seconds_and_dates_are_parsed(value: str, expected: float) -> None:
    """Haravan sends a float. HTTP also allows a date. A past date means no wait."""
    assert parse_retry_after(value, date=None, now=NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        " ",
        "soon",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "9" * 100_000,
        "x" * 100_000,
        "2 seconds",
        "1,5",
        "0x10",
        "\x00",
        "\x1b[2J",
        "Sat, 31 Feb 2026 09:30:10 GMT",
        "Sat, 31 Jan 2026 25:30:10 GMT",
        "Sat, 31 Jan 99999 09:30:10 GMT",
        "Sat, 31 Jan 2026 09:30:10 +9999",
        "Sat, 31 Jan 2026 09:30:10 -99999999999999999999",
        ", , ,",
        "0 Jan",
    ],
)
def test_an_invalid_value_is_ignored(value: str | None) -> None:
    """The usual backoff applies."""
    assert parse_retry_after(value, date=None, now=NOW) is None


def test_a_date_is_relative_to_the_server_clock() -> None:
    """The server's clock may be an hour off, but both dates come from it."""
    found = parse_retry_after(
        "Sat, 31 Jan 2026 10:31:00 GMT", date="Sat, 31 Jan 2026 10:30:00 GMT", now=NOW
    )
    assert found == 60.0


@pytest.mark.parametrize("date", ["", "yesterday", "9" * 1000])
def test_an_invalid_date_header_is_ignored(date: str) -> None:
    """The clock of this host is used instead."""
    found = parse_retry_after("Sat, 31 Jan 2026 09:31:00 GMT", date=date, now=NOW)
    assert found == 60.0


def test_seconds_do_not_depend_on_a_clock() -> None:
    """A wrong `Date` has no effect."""
    assert parse_retry_after("5", date="Sat, 31 Jan 2037 09:31:00 GMT", now=NOW) == 5.0


months = st.sampled_from(["Jan", "Feb", "Dec", "jan", "Foo", ""])
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Sat", "Sun", "", "x"]),
    st.integers(-1, 40),
    months,
    st.integers(-1, 100_000),
    st.integers(-1, 30),
    st.integers(-1, 70),
    st.integers(-1, 70),
    st.sampled_from(["GMT", "UTC", "-0000", "+0700", "+9999", "-2400", "", "EST", "+1" * 10]),
)
texts = st.none() | st.text(st.characters()) | dates | st.floats().map(str) | st.integers().map(str)


@given(texts, texts)
@example("Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 1 Jan 0001 00:00:00 +2359")
def test_any_text_is_a_finite_wait_or_none(value: str | None, date: str | None) -> None:
    """Parsing never raises."""
    found = parse_retry_after(value, date=date, now=NOW)
    assert found is None or (math.isfinite(found) and found >= 0)


@given(st.integers(0, 10**6))
def test_a_date_gives_the_time_until_then(seconds: int) -> None:
    """HTTP dates have a precision of one second."""
    until = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after(until, date=None, now=NOW) == seconds
