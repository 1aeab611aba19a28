"""Convert an attempt of a job to Celery events for Flower. Pure.

Flower's task list searches uuid, name, state, args, kwargs and result, but neither exception nor
traceback. So args, kwargs and result contain the error code. `result:2018278` matches any part of
the code or message. `kwargs:error_code=10/2018278` is an exact match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...schemas import Attempt, State, from_ms, iso_utc, sanitize
from ...schemas.masking import masked

#: The task name of jobs in Flower. No worker runs a task of this name.
SEND_TASK = "harasocial.send"

#: The state of a job → the event that ends its attempt in Flower.
_EVENT_OF_STATE = {
    State.SENT: "task-succeeded",
    State.FAILED: "task-failed",
    State.RETRYING: "task-retried",
}
#: Maximum characters kept of job fields, which another client may have written.
_MAX_CHARACTERS = 300
#: Maximum age of the shown start of an attempt. Flower logs a warning about different clocks if an
#: event's time is more than 16 seconds away. The runtime and the timeline show the real times.
_OLDEST_BEGIN_SECONDS = 12.0

CeleryEvent = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """The end of a job's attempt, at `at_seconds` (since the epoch).

    Attributes:
        body: the body of the API's request as stored. It may be invalid or incomplete.
        attempts: all known attempts, oldest first, including the one that ended.
        retry_at_seconds: for a RETRYING job, when it is due (since the epoch).
        dispatch_id: the id of the Celery task that made the attempt, or None.
    """

    job_id: str
    state: State
    at_seconds: float
    body: Mapping[str, Any]
    error_code: str | None = None
    error_message: str | None = None
    attempts: tuple[Attempt, ...] = field(default=())
    duration_seconds: float = 0.0
    retry_at_seconds: float | None = None
    dispatch_id: str | None = None


def events_of(event: JobEvent) -> list[CeleryEvent]:
    """Return the events, as (type, fields), that show the job's state in Flower.

    Each attempt has three events (received, started, ended), because Flower needs them to count
    active tasks. Each has the number of the attempt, because events may arrive in another order.
    Returns an empty list for a state in which no attempt has ended.
    """
    ends_with = _EVENT_OF_STATE.get(event.state)
    if ends_with is None:
        return []
    outcome = _outcome(event)
    retries = max(0, len(event.attempts) - 1)
    began = event.at_seconds - min(event.duration_seconds, _OLDEST_BEGIN_SECONDS)
    received = {
        "uuid": event.job_id,
        "timestamp": began,
        "name": SEND_TASK,
        "args": _args(event.body),
        "kwargs": _kwargs(event),
        "parent_id": event.dispatch_id,
        "root_id": event.dispatch_id,
        "retries": retries,
        "eta": None,
        "expires": None,
    }
    started = {"uuid": event.job_id, "timestamp": began, "retries": retries}
    ended = {
        "uuid": event.job_id,
        "timestamp": event.at_seconds,
        "retries": retries,
        "runtime": event.duration_seconds,
        "result": outcome,
        # None clears the value of an earlier attempt in Flower.
        "exception": None if event.state is State.SENT else outcome,
        "traceback": _timeline(event.attempts) or None,
        "eta": _iso(event.retry_at_seconds),
    }
    return [("task-received", received), ("task-started", started), (ends_with, ended)]


def _outcome(event: JobEvent) -> str:
    if event.state is State.SENT:
        return "sent"
    return ": ".join(
        shown for shown in map(_shown, (event.error_code, event.error_message)) if shown
    )


def _args(body: Mapping[str, Any]) -> str:
    parts = {
        "page_id": _shown(body.get("page_id")),
        "payload_id": _shown(_nested(body, "message", "payload_id")),
        "recipient_id": masked(_nested(body, "recipient", "id")),
    }
    return " ".join(f"{name}={text}" for name, text in parts.items() if text)


def _kwargs(event: JobEvent) -> str:
    kwargs = {"page_id": _shown(event.body.get("page_id"))}
    if event.error_code is not None and event.state is not State.SENT:
        kwargs["error_code"] = _shown(event.error_code)
    return repr(kwargs)


def _timeline(attempts: Iterable[Attempt]) -> str:
    """Return the attempts as text, one per line."""
    return "\n".join(map(_line, attempts))


def _line(attempt: Attempt) -> str:
    status = f"HTTP {attempt.http_status}" if attempt.http_status is not None else "no reply"
    if attempt.duration_ms is not None:
        status += f" after {attempt.duration_ms} ms"
    error = ": ".join(filter(None, map(_shown, (attempt.error_code, attempt.error_message))))
    return f"{iso_utc(attempt.at)}  {status}  {error}".rstrip()


def _nested(body: Mapping[str, Any], outer: str, inner: str) -> Any:
    found = body.get(outer)
    return found.get(inner) if isinstance(found, Mapping) else None


def _shown(value: object) -> str:
    return "" if value is None else sanitize(str(value), _MAX_CHARACTERS)


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else iso_utc(from_ms(round(seconds * 1000)))
