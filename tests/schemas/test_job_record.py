"""The JSON object of a job, and its times."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from harasocial_dispatch.schemas import (
    Attempt,
    Delivery,
    JobRecord,
    ReplayRecord,
    State,
    from_ms,
    iso_utc,
)
from hypothesis import given
from hypothesis import strategies as st
from support.harness import present

HANOI = timezone(timedelta(hours=7))


def test_a_complete_job_is_printed_as_documented() -> None:
    """The fields have the order of `show --json`. Times are ISO 8601 in UTC."""
    record = JobRecord(
        job_id="0123abcd",
        state=State.FAILED,
        page_id="500",
        campaign="tet-2026",
        job={"page_id": "500"},
        error_code="10/2018278",
        error_message="outside of the window",
        http_status=400,
        attempt_count=1,
        attempts=(
            Attempt(
                at=datetime(2026, 1, 31, 9, 30, tzinfo=HANOI),
                duration_ms=250,
                http_status=400,
                error_code="10/2018278",
                error_message="outside of the window",
            ),
        ),
        replays=(
            ReplayRecord(
                at=datetime(2026, 1, 31, 9, 30, 1, tzinfo=HANOI), by="thao@ops", via="cli"
            ),
        ),
        idempotency_key="order-1001",
        delivery=Delivery.AT_MOST_ONCE,
        enqueued_at=datetime(2026, 1, 31, 2, 29, 59, 999_999, tzinfo=timezone.utc),
        send_at=datetime(2026, 1, 31, 9, 30, tzinfo=HANOI),
        expires_at=datetime(2026, 2, 1, 9, 30, tzinfo=HANOI),
        next_attempt_at=None,
        finished_at=datetime(2026, 1, 31, 2, 30, 0, 250_000, tzinfo=timezone.utc),
    )
    assert list(record.as_json().items()) == [
        ("job_id", "0123abcd"),
        ("state", "failed"),
        ("error_code", "10/2018278"),
        ("error_message", "outside of the window"),
        ("http_status", 400),
        ("attempt_count", 1),
        (
            "attempts",
            [
                {
                    "at": "2026-01-31T02:30:00.000Z",
                    "duration_ms": 250,
                    "http_status": 400,
                    "error_code": "10/2018278",
                    "error_message": "outside of the window",
                }
            ],
        ),
        ("replays", [{"at": "2026-01-31T02:30:01.000Z", "by": "thao@ops", "via": "cli"}]),
        ("page_id", "500"),
        ("campaign", "tet-2026"),
        ("job", {"page_id": "500"}),
        ("idempotency_key", "order-1001"),
        ("delivery", "at_most_once"),
        ("enqueued_at", "2026-01-31T02:29:59.999Z"),
        ("send_at", "2026-01-31T02:30:00.000Z"),
        ("expires_at", "2026-02-01T02:30:00.000Z"),
        ("next_attempt_at", None),
        ("finished_at", "2026-01-31T02:30:00.250Z"),
    ]


def test_an_empty_job_has_every_field() -> None:
    """Programs do not need to check whether a field exists."""
    record = JobRecord(job_id="x", state=State.QUEUED, page_id=None, job={})
    printed = record.as_json()
    assert json.loads(json.dumps(printed)) == printed
    assert printed == {
        "job_id": "x",
        "state": "queued",
        "error_code": None,
        "error_message": None,
        "http_status": None,
        "attempt_count": 0,
        "attempts": [],
        "replays": [],
        "page_id": None,
        "campaign": None,
        "job": {},
        "idempotency_key": None,
        "delivery": "at_least_once",
        "enqueued_at": None,
        "send_at": None,
        "expires_at": None,
        "next_attempt_at": None,
        "finished_at": None,
    }


@pytest.mark.parametrize(
    ("word", "enum"), [*((s.value, State) for s in State), *((d.value, Delivery) for d in Delivery)]
)
def test_a_state_is_printed_as_its_value(word: str, enum: type[State] | type[Delivery]) -> None:
    """F-strings give the same result, on every version of Python."""
    assert f"{enum(word)}" == str(enum(word)) == word


@given(st.integers(0, 4_000_000_000_000))
def test_a_time_in_milliseconds_is_printed_to_the_millisecond(milliseconds: int) -> None:
    """A round trip does not change the time."""
    text = iso_utc(from_ms(milliseconds))
    assert text is not None and text.endswith("Z")
    time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert round(time.timestamp() * 1000) == milliseconds


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()))
def test_any_time_zone_is_printed_in_utc(time: datetime) -> None:
    """The instant is the same, truncated to milliseconds."""
    text = present(iso_utc(time))
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    assert timedelta(0) <= time - found < timedelta(milliseconds=1)
