"""A job as the fields of a Redis hash, and back.

| field | value |
|---|---|
| state, page_id, recipient_id, payload_id, metadata | text |
| attempts | attempts spent so far |
| attempt:1, attempt:2, … | JSON [at_ms, duration_ms, http_status, error_code, error_message] |
| enqueued_at, send_at, expires_at, finished_at | milliseconds since the epoch |
| delivery, urgent, idempotency_key | only where not the default |
| error_code, error_message, http_status | of the latest attempt, where there is one |
| claim | token of the process that is sending it |
| attempts_before_replay | attempts that do not count any more |

Redis keeps a hash as a compact listpack (276 bytes a job in place of 716) while no value is longer
than 64 bytes. A payload id has 66, so the two long texts go on in fields `payload_id+1`, ….
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..schemas import (
    MESSAGING_TYPE,
    Attempt,
    Delivery,
    JobRecord,
    NewJob,
    State,
    from_ms,
    harmless,
)

#: Bytes of a value that a listpack keeps (`hash-max-listpack-value`).
_LISTPACK_VALUE_BYTES = 64
#: A greater number in a hash was not written by us, and would overflow a time.
_GREATEST_NUMBER = 2**53
#: Characters kept of a text within an attempt; those written by us have no more.
_ATTEMPT_TEXT_CHARACTERS = 500


def to_fields(new: NewJob) -> list[str]:
    """Return the fields and values, in turn, that the enqueue script stores beside its own."""
    job = new.job
    fields = ["recipient_id", job.recipient_id]
    _add_long(fields, "payload_id", job.payload_id)
    if job.metadata is not None:
        _add_long(fields, "metadata", job.metadata)
    if new.idempotency_key is not None:
        fields += ["idempotency_key", new.idempotency_key]
    if new.send_at_ms is not None:
        fields += ["send_at", str(new.send_at_ms)]
    if new.delivery is not Delivery.AT_LEAST_ONCE:
        fields += ["delivery", new.delivery.value]
    if new.urgent:
        fields += ["urgent", "1"]
    return fields


def _add_long(fields: list[str], name: str, text: str) -> None:
    # A character has at most four bytes; ASCII, the common case, has one.
    size = _LISTPACK_VALUE_BYTES if text.isascii() else _LISTPACK_VALUE_BYTES // 4
    fields += [name, text[:size]]
    for part, start in enumerate(range(size, len(text), size), start=1):
        fields += [f"{name}+{part}", text[start : start + size]]


def _long(job: Mapping[str, str], name: str) -> str | None:
    text = job.get(name)
    if text is None:
        return None
    part = 1
    while (more := job.get(f"{name}+{part}")) is not None:
        text += more
        part += 1
    return text


def to_body(job: Mapping[str, str]) -> dict[str, Any]:
    """Return the API's body that a job's hash stands for; it may not be valid, or even whole."""
    body: dict[str, Any] = {
        "messaging_type": MESSAGING_TYPE,
        "recipient": {"id": job.get("recipient_id")},
        "message": {"payload_id": _long(job, "payload_id")},
        "page_id": job.get("page_id"),
    }
    metadata = _long(job, "metadata")
    if metadata is not None:
        body["metadata"] = metadata
    return body


def to_record(job_id: str, job: Mapping[str, str], due_ms: float | None) -> JobRecord:
    """Return the record that a job's hash stands for, whatever other hands put into it.

    `due_ms` is the job's score in `due`, if it has one.
    """
    state = _state(job.get("state"))
    waits = state in (State.SCHEDULED, State.RETRYING)
    return JobRecord(
        job_id=job_id,
        state=state,
        page_id=job.get("page_id"),
        job=to_body(job),
        error_code=job.get("error_code"),
        error_message=job.get("error_message"),
        http_status=_int(job.get("http_status")),
        attempt_count=_int(job.get("attempts")) or 0,
        attempts=_attempts(job),
        idempotency_key=job.get("idempotency_key"),
        delivery=_delivery(job),
        enqueued_at=_time(job.get("enqueued_at")),
        send_at=_time(job.get("send_at")),
        expires_at=_time(job.get("expires_at")),
        next_attempt_at=_time(due_ms) if waits and due_ms is not None else None,
        finished_at=_time(job.get("finished_at")),
    )


def _attempts(job: Mapping[str, str]) -> tuple[Attempt, ...]:
    numbered = [
        (_int(name.removeprefix("attempt:")), name) for name in job if name.startswith("attempt:")
    ]
    found = []
    for _, name in sorted((number, name) for number, name in numbered if number is not None):
        try:
            at, duration, status, code, message = json.loads(job[name])
            found.append(
                Attempt(
                    at=from_ms(int(at)),
                    duration_ms=_int(duration),
                    http_status=_int(status),
                    error_code=_text(code),
                    error_message=_text(message),
                )
            )
        except (ValueError, TypeError, OverflowError, OSError, RecursionError):
            continue  # not written by us
    return tuple(found)


def attempt_text(
    at_ms: int,
    duration_ms: int,
    http_status: int | None,
    error_code: str | None,
    error_message: str | None,
) -> str:
    """Return an attempt as the JSON text that the record script stores."""
    return json.dumps(
        [at_ms, duration_ms, http_status, error_code, error_message],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _state(text: str | None) -> State:
    try:
        return State(text)
    except ValueError:
        return State.FAILED  # other hands wrote it; nothing will send it


def _delivery(job: Mapping[str, str]) -> Delivery:
    at_most_once = job.get("delivery") == Delivery.AT_MOST_ONCE.value
    return Delivery.AT_MOST_ONCE if at_most_once else Delivery.AT_LEAST_ONCE


def _int(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= _GREATEST_NUMBER else None


def _text(value: Any) -> str | None:
    return None if value is None else harmless(str(value), _ATTEMPT_TEXT_CHARACTERS)


def _time(milliseconds: Any) -> Any:
    number = _int(milliseconds)
    try:
        return None if number is None else from_ms(number)
    except (ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A job that this process alone may send, until its lease ends.

    Attributes:
        token: what must be shown to record an outcome.
        body: the API's body as stored; not yet validated.
        attempts_spent: since the enqueueing or the latest replay.
        lane_level: pauses in a row of the page's lane; above 0, this claim is its probe.
        claimed_at_ms, claimed_at: when, by the ledger's clock (milliseconds since the epoch) and
            by this process's monotonic clock (seconds).
        remaining_seconds: from the claim until the job's deadline.
        suspect: whether its last holder went away while sending it.
    """

    job_id: str
    token: str
    page_id: str
    body: dict[str, Any]
    delivery: Delivery
    attempts_spent: int
    lane_level: int
    claimed_at_ms: int
    claimed_at: float
    remaining_seconds: float
    suspect: bool = False
    #: The latest ones before this claim, at most 50, oldest first.
    attempts: tuple[Attempt, ...] = ()
    #: Whether it had failed, and was replayed.
    replayed: bool = False
    #: When it could first have been sent, its enqueueing or `send_at` (ms since the epoch).
    sendable_from_ms: int | None = None


def to_claim(
    job_id: str,
    token: str,
    lane_level: int,
    now_ms: int,
    asked_at: float,
    job: Mapping[str, str],
) -> Claim:
    """Return the claim that the claim script's answer stands for."""
    spent = (_int(job.get("attempts")) or 0) - (_int(job.get("attempts_before_replay")) or 0)
    return Claim(
        job_id=job_id,
        token=token,
        page_id=job.get("page_id", ""),
        body=to_body(job),
        delivery=_delivery(job),
        attempts_spent=max(0, spent),
        lane_level=lane_level,
        claimed_at_ms=now_ms,
        claimed_at=asked_at,
        suspect=job.get("error_code") == "unknown_outcome",
        remaining_seconds=((_int(job.get("expires_at")) or 0) - now_ms) / 1000,
        # Most jobs are claimed once; the others can bear the reading.
        attempts=_attempts(job) if job.get("attempts", "0") != "0" else (),
        replayed="attempts_before_replay" in job,
        sendable_from_ms=_int(job.get("send_at")) or _int(job.get("enqueued_at")),
    )
