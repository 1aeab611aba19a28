"""Convert a job to the fields of a Redis hash, and back.

| field | value |
|---|---|
| state, page_id, recipient_id, payload_id, metadata | text |
| attempts | attempts spent so far |
| attempt:1, attempt:2, … | JSON [at_ms, duration_ms, http_status, error_code, error_message] |
| enqueued_at, send_at, expires_at, finished_at | milliseconds since the epoch |
| delivery, urgent, idempotency_key, campaign | only if not the default |
| error_code, error_message, http_status | of the latest attempt, if there is one |
| idempotency_key | empty: the default for a campaign's job, see `schemas.new_job.default_key` |
| claim | token of the process that is sending it |
| defect | why it cannot be sent; deleted when that is recorded |
| replayed:1, replayed:2, … | JSON [at_ms, by, via] of each replay; the latest 20 |
| attempts_before_replay | attempts before the latest replay, which no longer count |

Redis stores a hash as a compact listpack (276 bytes per job instead of 716) if no value is longer
than 64 bytes. A payload id has 66, so longer parts of `payload_id` and `metadata` are stored in the
fields `payload_id+1`, ….
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..schemas import (
    MESSAGING_TYPE,
    Attempt,
    Delivery,
    JobRecord,
    NewJob,
    ReplayRecord,
    State,
    from_ms,
    from_stored,
    sanitize,
)
from ..schemas.new_job import default_key

#: The hash's fields that hold the body, with their paths in the body.
BODY_FIELDS = {
    "page_id": "page_id",
    "recipient_id": "recipient.id",
    "payload_id": "message.payload_id",
    "metadata": "metadata",
}

#: Maximum length (bytes) of a value in a listpack (`hash-max-listpack-value`).
_LISTPACK_VALUE_BYTES = 64
#: A larger number was written by another client, and would overflow a time.
_GREATEST_NUMBER = 2**53
#: Maximum length (characters) of a text within an attempt.
_ATTEMPT_TEXT_CHARACTERS = 500


def to_fields(new: NewJob) -> list[str]:
    """Return alternating fields and values that the enqueue script adds to its own."""
    job = new.job
    fields = ["recipient_id", job.recipient_id]
    _add_long(fields, "payload_id", job.payload_id)
    if job.metadata is not None:
        _add_long(fields, "metadata", job.metadata)
    if new.idempotency_key is not None:
        is_default = new.campaign is not None and new.idempotency_key == default_key(
            new.campaign, job.page_id, job.recipient_id, job.payload_id
        )
        # A default key is long, and all its parts are in other fields.
        fields += ["idempotency_key", "" if is_default else new.idempotency_key]
    if new.send_at_ms is not None:
        fields += ["send_at", str(new.send_at_ms)]
    if new.delivery is not Delivery.AT_LEAST_ONCE:
        fields += ["delivery", new.delivery.value]
    if new.urgent:
        fields += ["urgent", "1"]
    if new.campaign is not None:
        fields += ["campaign", new.campaign]
    return fields


def _add_long(fields: list[str], name: str, text: str) -> None:
    # A character has at most four bytes. Most texts are ASCII, with one byte per character.
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
    """Return the body of the API's request from a job's hash; it may be invalid or incomplete."""
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
    """Return the record from a job's hash, even if another client wrote invalid values.

    `due_ms` is the job's score in `due`, if it has one.
    """
    state = to_state(job.get("state"))
    waits = state in (State.SCHEDULED, State.RETRYING)
    return JobRecord(
        job_id=job_id,
        state=state,
        page_id=job.get("page_id"),
        job=to_body(job),
        error_code=job.get("error_code"),
        error_message=job.get("error_message"),
        http_status=to_int(job.get("http_status")),
        attempt_count=to_int(job.get("attempts")) or 0,
        attempts=to_attempts(job),
        replays=_replays(job),
        idempotency_key=_idempotency_key(job),
        delivery=to_delivery(job),
        enqueued_at=to_time(job.get("enqueued_at")),
        send_at=to_time(job.get("send_at")),
        expires_at=to_time(job.get("expires_at")),
        next_attempt_at=to_time(due_ms) if waits and due_ms is not None else None,
        finished_at=to_time(job.get("finished_at")),
        campaign=job.get("campaign"),
    )


def _idempotency_key(job: Mapping[str, str]) -> str | None:
    key = job.get("idempotency_key")
    if key != "":
        return key
    texts = (job.get("campaign"), job.get("page_id"), job.get("recipient_id"))
    return default_key(*texts, _long(job, "payload_id"))


def to_attempts(job: Mapping[str, str]) -> tuple[Attempt, ...]:
    """Return the attempts stored in a job's hash, oldest first."""
    found = []
    for text in _numbered(job, "attempt:"):
        try:
            at, duration, status, code, message = json.loads(text)
            found.append(
                Attempt(
                    at=from_ms(int(at)),
                    duration_ms=to_int(duration),
                    http_status=to_int(status),
                    error_code=_text(code),
                    error_message=_text(message),
                )
            )
        except (ValueError, TypeError, OverflowError, OSError, RecursionError):
            continue  # written by another client
    return tuple(found)


def _replays(job: Mapping[str, str]) -> tuple[ReplayRecord, ...]:
    found = []
    for text in _numbered(job, "replayed:"):
        try:
            at, by, via, attempt_count = json.loads(text)
            found.append(
                ReplayRecord(
                    at=from_ms(int(at)),
                    by=_text(by) or "",
                    via=_text(via) or "",
                    attempt_count=to_int(attempt_count) or 0,
                )
            )
        except (ValueError, TypeError, OverflowError, OSError, RecursionError):
            continue  # written by another client
    return tuple(found)


def _numbered(job: Mapping[str, str], prefix: str) -> list[str]:
    """Return the values of the fields `prefix` + number, ordered by number."""
    numbers = ((to_int(name.removeprefix(prefix)), name) for name in job if name.startswith(prefix))
    return [job[name] for _, name in sorted((n, name) for n, name in numbers if n is not None)]


def attempt_text(
    at_ms: int,
    duration_ms: int | None,
    http_status: int | None,
    error_code: str | None,
    error_message: str | None,
) -> str:
    """Return the JSON text of an attempt for the record script."""
    return json.dumps(
        [at_ms, duration_ms, http_status, error_code, error_message],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def to_state(text: str | None) -> State:
    """Return a job's state; FAILED if another client wrote something else."""
    try:
        return State(text)
    except ValueError:
        return State.FAILED  # no worker sends it


def to_delivery(job: Mapping[str, str]) -> Delivery:
    """Return a job's delivery; the default if another client wrote something else."""
    at_most_once = job.get("delivery") == Delivery.AT_MOST_ONCE.value
    return Delivery.AT_MOST_ONCE if at_most_once else Delivery.AT_LEAST_ONCE


def to_int(value: Any) -> int | None:
    """Return `value` as a number, or None if it is not a valid number."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) <= _GREATEST_NUMBER else None


def _text(value: Any) -> str | None:
    return None if value is None else sanitize(str(value), _ATTEMPT_TEXT_CHARACTERS)


def to_time(milliseconds: object) -> datetime | None:
    """Return a stored time, or None if it is not a valid time."""
    return from_stored(to_int(milliseconds))


def to_object(text: str) -> dict[str, Any]:
    """Return a JSON object; an empty one if another client stored something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
