"""A job is converted to fields of a hash and back without changes, and the hash stays small."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from harasocial_dispatch.ledger.claim import to_claim
from harasocial_dispatch.ledger.job_hash import (
    attempt_text,
    to_body,
    to_fields,
    to_record,
)
from harasocial_dispatch.schemas import (
    Attempt,
    Delivery,
    NewJob,
    SendJob,
    State,
    parse_new_job,
    parse_send_job,
)
from hypothesis import example, given
from hypothesis import strategies as st

NEW = NewJob(job=SendJob(page_id="500", recipient_id="2560", payload_id="p"))
#: Fields that the enqueue script adds.
STORED = {"page_id": "500", "state": "queued", "attempts": "0"}


def as_hash(new: NewJob) -> dict[str, str]:
    flat = to_fields(new)
    assert len(flat) % 2 == 0
    found = dict(zip(flat[::2], flat[1::2], strict=True))
    assert len(found) == len(flat) // 2, "no field stands there twice"
    return found


def test_only_what_is_not_the_default_is_stored() -> None:
    """Most jobs need three fields in addition to the script's fields."""
    assert as_hash(NEW) == {"recipient_id": "2560", "payload_id": "p"}


def test_every_option_is_stored() -> None:
    """The worker and readers need all options."""
    new = NewJob(
        job=SendJob(page_id="500", recipient_id="2560", payload_id="p", metadata="m"),
        idempotency_key="k",
        send_at_ms=1_769_851_800_000,
        expires_at_ms=1_769_851_900_000,
        delivery=Delivery.AT_MOST_ONCE,
        urgent=True,
    )
    assert as_hash(new) == {
        "recipient_id": "2560",
        "payload_id": "p",
        "metadata": "m",
        "idempotency_key": "k",
        "send_at": "1769851800000",
        "delivery": "at_most_once",
        "urgent": "1",
    }


@pytest.mark.parametrize(
    ("payload_id", "expected"),
    [
        ("p" * 64, {"payload_id": "p" * 64}),
        ("p" * 66, {"payload_id": "p" * 64, "payload_id+1": "pp"}),
        (
            "p" * 130,
            {"payload_id": "p" * 64, "payload_id+1": "p" * 64, "payload_id+2": "pp"},
        ),
        ("ơ" * 17, {"payload_id": "ơ" * 16, "payload_id+1": "ơ"}),
    ],
)
def test_a_long_text_is_split_into_fields(payload_id: str, expected: dict[str, str]) -> None:
    """Each field has at most 64 bytes, so that Redis keeps the hash compact."""
    new = NewJob(job=SendJob(page_id="500", recipient_id="2560", payload_id=payload_id))
    assert as_hash(new) == {"recipient_id": "2560", **expected}


digits = st.text("0123456789", min_size=1, max_size=32)
bodies = st.fixed_dictionaries(
    {
        "recipient": st.fixed_dictionaries({"id": digits}),
        "message": st.fixed_dictionaries(
            {
                "payload_id": st.text(
                    st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=256
                ).filter(str.strip)
            }
        ),
        "page_id": digits,
    },
    optional={
        "metadata": st.text(
            st.characters(exclude_categories=["Cs"]), min_size=1, max_size=500
        ).filter(str.strip)
    },
)
options = st.fixed_dictionaries(
    {},
    optional={
        "idempotency_key": st.text(min_size=1, max_size=200).filter(
            lambda key: key.isprintable() and bool(key.strip())
        ),
        "send_at": st.datetimes(
            datetime(2001, 1, 1), datetime(2026, 11, 1), timezones=st.just(timezone.utc)
        ),
        "delivery": st.sampled_from([delivery.value for delivery in Delivery]),
        "urgent": st.booleans(),
    },
)


@given(bodies, options)
@example(
    {
        "recipient": {"id": "1" * 32},
        "message": {"payload_id": "😀" * 256},
        "page_id": "2" * 32,
        "metadata": "😀" * 500,
    },
    {"idempotency_key": "😀" * 200},
)
@example(
    {
        "recipient": {"id": "1"},
        "message": {"payload_id": "p" * 256},
        "page_id": "2",
        "metadata": "\x00" * 500,
    },
    {},
)
def test_any_job_comes_back_as_it_was(body: dict[str, object], chosen: dict[str, object]) -> None:
    """The body is identical, and only the key may be too long for a compact hash."""
    new = parse_new_job(body, chosen)
    stored = as_hash(new)
    assert parse_send_job(to_body({**STORED, **stored, "page_id": new.job.page_id})) == new.job
    for name, value in stored.items():
        if name != "idempotency_key":
            assert 0 < len(value.encode()) <= 64
    assert len(stored) < 64
    record = to_record("id", {**STORED, **stored, "page_id": new.job.page_id}, None)
    assert record.job == new.job.body()
    assert record.idempotency_key == new.idempotency_key
    assert record.delivery == new.delivery
    assert (None if record.send_at is None else round(record.send_at.timestamp() * 1000)) == (
        new.send_at_ms
    )


def test_an_empty_hash_is_a_job_without_anything() -> None:
    """Another client may leave an empty hash; reading it raises nothing."""
    record = to_record("id", {}, None)
    assert record.state is State.FAILED
    assert record.job["recipient"] == {"id": None}
    assert record.job["message"] == {"payload_id": None}
    assert (record.page_id, record.attempt_count, record.attempts) == (None, 0, ())


@pytest.mark.parametrize("state", State)
def test_only_a_job_that_waits_for_a_time_has_a_next_attempt(state: State) -> None:
    """For a job that is being sent, `due` has the end of its lease."""
    record = to_record("id", {"state": state.value}, 1_769_851_800_000.0)
    waits = state in (State.SCHEDULED, State.RETRYING)
    assert (record.next_attempt_at is not None) == waits


@pytest.mark.parametrize("due", [float("inf"), float("-inf"), float("nan"), 1e300, -1e300])
def test_a_due_time_beyond_all_calendars_is_none(due: float) -> None:
    """Another client may have written it."""
    assert to_record("id", {"state": "retrying"}, due).next_attempt_at is None


def test_attempts_come_in_their_order() -> None:
    """They are ordered by number, because the fields of a hash have no order."""
    fields = {
        f"attempt:{number}": attempt_text(number * 1000, 5, 500, f"code{number}", None)
        for number in (10, 2, 9, 1, 11)
    }
    found = to_record("id", fields, None).attempts
    assert [attempt.error_code for attempt in found] == [
        "code1",
        "code2",
        "code9",
        "code10",
        "code11",
    ]


attempts = st.tuples(
    st.integers(0, 4_000_000_000_000),
    st.integers(0, 10**6),
    st.none() | st.integers(100, 999),
    st.none() | st.text(min_size=1, max_size=64).filter(str.isprintable),
    st.none() | st.text(min_size=1, max_size=500).filter(str.isprintable),
)


@given(attempts)
def test_an_attempt_comes_back_as_it_was(
    attempt: tuple[int, int, int | None, str | None, str | None],
) -> None:
    """Its time is exact to the millisecond."""
    at_ms, duration_ms, http_status, error_code, error_message = attempt
    (found,) = to_record("id", {"attempt:1": attempt_text(*attempt)}, None).attempts
    assert round(found.at.timestamp() * 1000) == at_ms
    assert found == Attempt(
        at=found.at,
        duration_ms=duration_ms,
        http_status=http_status,
        error_code=error_code,
        error_message=error_message,
    )


texts = (
    st.text(max_size=20)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["9" * 400, "9" * 5000, "-" + "9" * 400])
)
hashes = st.dictionaries(
    st.sampled_from(
        [
            "state", "page_id", "recipient_id", "payload_id", "payload_id+1", "metadata",
            "metadata+2", "attempts", "attempts_before_replay", "attempt:1", "attempt:x",
            "enqueued_at", "send_at", "expires_at", "finished_at", "delivery", "urgent",
            "idempotency_key", "error_code", "error_message", "http_status", "claim",
        ]
    )
    | st.text(max_size=10),
    texts
    | st.sampled_from([state.value for state in State])
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=6),
        max_leaves=8,
    ).map(json.dumps),
)  # fmt: skip


@given(hashes, st.none() | st.floats())
@example({"expires_at": "9" * 400, "attempts": "9" * 400, "enqueued_at": "9" * 400}, None)
def test_any_hash_can_be_looked_at_and_claimed(fields: dict[str, str], due: float | None) -> None:
    """Other clients may write anything; the record can still be converted to JSON."""
    json.dumps(to_record("id", fields, due).as_json(), allow_nan=False)
    flat = [text for pair in fields.items() for text in pair]
    row = ["id", 0, 0, 0, "", 0, flat]
    claim = to_claim(row, token="token", now_ms=1_769_851_800_000, asked_at=1.0)
    assert claim.attempts_spent >= 0
    assert -1e13 < claim.remaining_seconds < 1e13
