"""The filter in a page's URL: parsed, formatted, and restricted."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs

import pytest
from harasocial_dispatch.flower.filters import DURATIONS, FailureFilter, InvalidFilter
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
texts = st.text(max_size=40).map(str.strip)
times = st.none() | st.datetimes(
    min_value=datetime(2000, 1, 1),
    max_value=datetime(2100, 1, 1),
    timezones=st.just(timezone.utc),
).map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))


def read(query: str) -> FailureFilter:
    values = parse_qs(query)
    return FailureFilter.read(lambda name: values.get(name, []))


several_texts = st.lists(texts.filter(bool), max_size=3, unique=True).map(tuple)


@given(error_codes=several_texts, page_ids=several_texts, text=texts, since=times, until=times)
def test_a_url_has_the_complete_filter(
    error_codes: tuple[str, ...],
    page_ids: tuple[str, ...],
    text: str,
    since: datetime | None,
    until: datetime | None,
) -> None:
    """A formatted filter is parsed to the same filter, for any characters."""
    if since and until and until < since:
        since, until = until, since
    wanted = FailureFilter(
        error_codes=error_codes, page_ids=page_ids, text=text, since=since, until=until
    )
    assert read(wanted.as_query()) == wanted
    assert wanted.is_empty is (wanted.as_query() == "")


@pytest.mark.parametrize("within", DURATIONS)
def test_a_duration_counts_back_from_now(within: str) -> None:
    """A bookmarked URL shows the latest failures at the time of use."""
    assert read(f"within={within}").as_of(NOW).since == NOW - DURATIONS[within][0]


def test_times_override_a_duration() -> None:
    """The form has both fields, and an entered time overrides the duration."""
    wanted = read("within=1h&since=2026-01-30T00:00:00Z")
    assert wanted.within == ""
    assert wanted.as_of(NOW).since == datetime(2026, 1, 30, tzinfo=timezone.utc)


def test_a_time_without_a_zone_is_utc_and_one_with_a_zone_is_kept() -> None:
    """A browser without scripts sends the first form, the page's script the second."""
    assert read("since=2026-01-30T07:00").since == datetime(2026, 1, 30, 7, tzinfo=timezone.utc)
    assert read("since=2026-01-30T07:00%2B07:00").since == datetime(
        2026, 1, 30, tzinfo=timezone.utc
    )


@pytest.mark.parametrize(
    "query",
    [
        "within=1y",
        "since=yesterday",
        "since=0001-01-01T00:00Z",
        "until=9999-12-31T23:59:59-12:00",
        "since=2026-02-01T00:00Z&until=2026-01-01T00:00Z",
        "within=1h&within=24h",
        "text=a&text=b",
        "&".join(f"error_code={n}" for n in range(101)),
    ],
)
def test_an_invalid_filter_is_rejected_with_a_message(query: str) -> None:
    """An invalid value is an error, not a default."""
    with pytest.raises(InvalidFilter, match=r"\.$"):
        read(query)


def test_restricting_keeps_the_other_conditions() -> None:
    """The links of the page restrict the current filter."""
    wanted = read("page_id=1&page_id=2&text=order&within=7d").with_error_code("551")
    assert (wanted.error_codes, wanted.page_ids, wanted.text, wanted.within) == (
        ("551",), ("1", "2"), "order", "7d",
    )  # fmt: skip
    between = wanted.between(NOW - timedelta(hours=1), NOW)
    assert (between.within, between.until) == ("", NOW)
    assert between.description() == (
        "failures with error code 551, on page 1 or 2, with the text “order”, "
        "from 2026-01-31 08:30:00 UTC, until 2026-01-31 09:30:00 UTC"
    )
