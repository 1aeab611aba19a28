"""The options of `enqueue`, and the rows of `enqueue_many`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from harasocial_dispatch.schemas import (
    Delivery,
    InvalidJob,
    NewJob,
    parse_new_job,
    parse_row,
    parse_send_job,
)
from hypothesis import example, given
from hypothesis import strategies as st

BODY = {
    "recipient": {"id": "2560816460648749"},
    "message": {"payload_id": "__hrf_f_1"},
    "page_id": "500725830264749",
}
#: 2026-01-31T09:30:00+07:00 in milliseconds since the epoch.
SPRING_MS = 1_769_826_600_000


class NoOffset(tzinfo):
    """A time zone without a UTC offset."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    dst = tzname = utcoffset


def errors_of(body: Any, options: dict[str, Any]) -> dict[str, list[str]]:
    with pytest.raises(InvalidJob) as caught:
        parse_new_job(body, options)
    return caught.value.errors


@pytest.mark.parametrize("options", [None, {}, {"idempotency_key": None, "send_at": None}])
def test_defaults_without_options(options: dict[str, Any] | None) -> None:
    """At least once, not urgent, without delay."""
    assert parse_new_job(BODY, options) == NewJob(
        job=parse_send_job(BODY),
        idempotency_key=None,
        send_at_ms=None,
        expires_at_ms=None,
        delivery=Delivery.AT_LEAST_ONCE,
        urgent=False,
    )


def test_every_option_is_kept() -> None:
    """Times are converted to milliseconds."""
    new = parse_new_job(
        BODY,
        {
            "idempotency_key": "order-1001-paid",
            "send_at": "2026-01-31T09:30:00+07:00",
            "expires_at": "2026-01-31T09:30:00.001+07:00",
            "delivery": "at_most_once",
            "urgent": True,
        },
    )
    assert new == NewJob(
        job=parse_send_job(BODY),
        idempotency_key="order-1001-paid",
        send_at_ms=SPRING_MS,
        expires_at_ms=SPRING_MS + 1,
        delivery=Delivery.AT_MOST_ONCE,
        urgent=True,
    )


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T09:30:00+07:00",
        "2026-01-31T02:30:00Z",
        "2026-01-31 02:30:00+00:00",
        " 2026-01-31T02:30Z ",
        "2026-01-31T02:30:00.000Z",
        datetime(2026, 1, 31, 2, 30, tzinfo=timezone.utc),
        datetime(2026, 1, 31, 9, 30, tzinfo=timezone(timedelta(hours=7))),
    ],
)
def test_a_time_has_many_formats(time: Any) -> None:
    """All formats and time zones of one instant give the same result."""
    assert parse_new_job(BODY, {"send_at": time}).send_at_ms == SPRING_MS


ISO = "Must be a time in ISO 8601, such as 2026-01-31T09:30:00+07:00."
ZONE = "Has no time zone; add one, such as +07:00 or Z."
DATETIME = "Must be a datetime with a time zone."


@pytest.mark.parametrize("name", ["send_at", "expires_at"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-31T09:30:00", ZONE),
        ("2026-01-31", ZONE),
        (datetime(2026, 1, 31), ZONE),
        (datetime(2026, 1, 31, tzinfo=NoOffset()), ZONE),
        ("tomorrow", ISO),
        ("", ISO),
        ("1769826600", ISO),
        ("2026-13-01T00:00:00Z", ISO),
        ("٢٠٢٦-٠١-٣١T09:30:00Z", ISO),
        ("\ud800", ISO),
        ("2026-01-31T09:30:00Z\x1b[2J", ISO),
        ("9" * 1_000_000, ISO),
        (1769826600, DATETIME),
        (float("nan"), DATETIME),
        (True, DATETIME),
        ([], DATETIME),
        ("9999-12-31T23:59:59Z", "Is more than 366 days ahead."),
        (
            datetime.max.replace(tzinfo=timezone(timedelta(hours=-23))),
            "Is more than 366 days ahead.",
        ),
        ("1999-12-31T23:59:59Z", "Is before the year 2000."),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=23))), "Is before the year 2000."),
    ],
)
def test_an_ambiguous_time_is_refused(name: str, value: Any, expected: str) -> None:
    """Values without a time zone, without a date, or too far away are refused."""
    assert errors_of(BODY, {name: value}) == {name: [expected]}


def test_the_latest_time_is_a_year_ahead() -> None:
    """A later time is most likely a mistake in units."""
    ahead = datetime.now(timezone.utc) + timedelta(days=365)
    assert parse_new_job(BODY, {"send_at": ahead}).send_at_ms == round(ahead.timestamp() * 1000)


@pytest.mark.parametrize("expires_at", ["2026-01-31T09:30:00+07:00", "2026-01-30T00:00:00Z"])
def test_a_job_must_not_expire_before_it_is_due(expires_at: str) -> None:
    """Such a job would never be sent."""
    options = {"send_at": "2026-01-31T09:30:00+07:00", "expires_at": expires_at}
    assert errors_of(BODY, options) == {"expires_at": ["Must be after send_at."]}


BLANK = "Must be a string of printable characters, not blank."


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"idempotency_key": ""}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": "  "}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": 1001}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": b"order"}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": "a\nb"}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": "\x1b[31m"}, {"idempotency_key": [BLANK]}),
        ({"idempotency_key": "\udc80"}, {"idempotency_key": [BLANK]}),
        (
            {"idempotency_key": "k" * 201},
            {"idempotency_key": ["Must have at most 200 characters; has 201."]},
        ),
        (
            {"idempotency_key": "k" * 1_000_000},
            {"idempotency_key": ["Must have at most 200 characters; has 1000000."]},
        ),
        ({"delivery": "twice"}, {"delivery": ["Must be 'at_least_once' or 'at_most_once'."]}),
        ({"delivery": ""}, {"delivery": ["Must be 'at_least_once' or 'at_most_once'."]}),
        ({"delivery": 1}, {"delivery": ["Not a valid string."]}),
        ({"delivery": None}, {"delivery": ["Field may not be null."]}),
        ({"urgent": "perhaps"}, {"urgent": ["Not a valid boolean."]}),
        ({"urgent": {}}, {"urgent": ["Not a valid boolean."]}),
        ({"urgent": None}, {"urgent": ["Field may not be null."]}),
        ({"priority": 3}, {"priority": ["Unknown field."]}),
    ],
)
def test_an_invalid_option_is_named(
    options: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    """The error is under the option's name."""
    assert errors_of(BODY, options) == expected


@pytest.mark.parametrize("key", ["a", "k" * 200, "đơn hàng 1001", "*", "a:b{c}"])
def test_an_idempotency_key_is_kept_unchanged(key: str) -> None:
    """Any printable characters are valid."""
    assert parse_new_job(BODY, {"idempotency_key": key}).idempotency_key == key


def test_errors_of_body_and_options_are_reported_together() -> None:
    """One exception has all errors of the call."""
    found = errors_of({**BODY, "page_id": 5}, {"urgent": "x", "delivery": "y"})
    assert set(found) == {"page_id", "urgent", "delivery"}


def test_a_row_has_the_fields_of_the_body_and_options() -> None:
    """A line of a file can describe a complete job."""
    row = {**BODY, "metadata": "m", "idempotency_key": "k", "urgent": "true", "send_at": None}
    assert parse_row(row) == parse_new_job(
        {**BODY, "metadata": "m"}, {"idempotency_key": "k", "urgent": True}
    )
    assert row["idempotency_key"] == "k", "the caller's row is not changed"


def test_a_row_without_options_is_the_body() -> None:
    """The JSON body of the API is a valid row."""
    assert parse_row(BODY) == parse_new_job(BODY)


def test_invalid_fields_and_options_of_a_row_are_named() -> None:
    """A name that is neither a field nor an option gets the error of an unknown field."""
    with pytest.raises(InvalidJob) as caught:
        parse_row({**BODY, "urgent": "maybe", "color": "red", "page_id": ""})
    assert caught.value.errors == {
        "urgent": ["Not a valid boolean."],
        "color": ["Is not a field of the API."],
        "page_id": ["Must not be blank."],
    }


@pytest.mark.parametrize("row", [None, "x", 5, ["page_id"], [BODY]])
def test_a_row_that_is_not_an_object_is_refused(row: Any) -> None:
    """Values that resemble an object are refused too."""
    with pytest.raises(InvalidJob) as caught:
        parse_row(row)
    assert set(caught.value.errors) == {"job"}


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=250)
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.datetimes().map(datetime.isoformat)
    | st.binary(max_size=10)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)


@given(
    st.dictionaries(
        st.sampled_from(["idempotency_key", "send_at", "expires_at", "delivery", "urgent"])
        | st.text(max_size=5),
        scalars | st.sampled_from(list(Delivery)),
        max_size=6,
    )
)
@example({"send_at": "2026-01-31T09:30:00+24:00"})
@example({"send_at": "0001-01-01T00:00:00+23:59"})
@example({"expires_at": "24:00"})
def test_any_options_are_accepted_or_named(options: dict[str, Any]) -> None:
    """The only possible exception is `InvalidJob`, and accepted values are valid."""
    try:
        new = parse_new_job(BODY, options)
    except InvalidJob as error:
        assert error.errors
        assert all(path and texts for path, texts in error.errors.items())
    else:
        assert isinstance(new.delivery, Delivery)
        assert isinstance(new.urgent, bool)
        assert new.idempotency_key is None or 1 <= len(new.idempotency_key) <= 200
        for time in (new.send_at_ms, new.expires_at_ms):
            assert time is None or 946_000_000_000 < time < 10_000_000_000_000


def test_an_option_in_the_body_gets_its_own_error() -> None:
    """If the option was ignored, two calls would make two jobs."""
    with pytest.raises(InvalidJob) as caught:
        parse_new_job(BODY | {"idempotency_key": "k", "color": "red"})
    assert caught.value.errors == {
        "idempotency_key": [
            "Is an option of enqueue, not a field of the body: pass it as an argument."
        ],
        "color": ["Is not a field of the API."],
    }
