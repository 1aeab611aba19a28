"""One job as Flower is to show it: which Celery events tell of an attempt. Pure.

Flower's task list searches uuid, name, state, args, kwargs and result, but neither exception nor
traceback. So the error code stands in all three: `result:2018278` finds it anywhere in the code or
message, and `kwargs:error_code=10/2018278` exactly, by an index of Flower's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...schemas import Attempt, State, from_ms, iso_utc, sanitize
from ...schemas.masking import masked

#: The name under which jobs appear in Flower. No task of this name is ever run.
SEND_TASK = "harasocial.send"

#: How a job that is in this state appears in Flower: the event that ends its attempt.
_EVENT_OF_STATE = {
    State.SENT: "task-succeeded",
    State.FAILED: "task-failed",
    State.RETRYING: "task-retried",
}
#: Characters kept of what other hands may have put into a job.
_MAX_CHARACTERS = 300
#: Flower takes the clocks of two hosts for different where an event tells of a time further away
#: than 16 seconds. So an attempt that took longer appears to have begun this long ago (seconds);
#: its runtime and its timeline have the truth.
_OLDEST_BEGIN_SECONDS = 12.0

CeleryEvent = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """What happened to a job just now, at `at_seconds` (since the epoch).

    Attributes:
        body: the API's body as stored; it may not be valid, or even whole.
        attempts: all of them that are known, oldest first, with the one that just ended.
        retry_at_seconds: of a RETRYING job, when it is due (since the epoch).
        dispatch_id: of the Celery task that made the attempt; None where there was none.
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
    """Return the events, as (type, fields), that make Flower show the job as it stands.

    Each attempt is received, started and ended, as Flower counts what is under way by all three.
    Returns nothing for a state in which no attempt has ended.
    """
    ends_with = _EVENT_OF_STATE.get(event.state)
    if ends_with is None:
        return []
    outcome = _outcome(event)
    began = event.at_seconds - min(event.duration_seconds, _OLDEST_BEGIN_SECONDS)
    received = {
        "uuid": event.job_id,
        "timestamp": began,
        "name": SEND_TASK,
        "args": _args(event.body),
        "kwargs": _kwargs(event),
        "parent_id": event.dispatch_id,
        "root_id": event.dispatch_id,
        "retries": max(0, len(event.attempts) - 1),
        "eta": None,
        "expires": None,
    }
    started = {"uuid": event.job_id, "timestamp": began}
    ended = {
        "uuid": event.job_id,
        "timestamp": event.at_seconds,
        "runtime": event.duration_seconds,
        "result": outcome,
        # None undoes what an earlier attempt left with Flower.
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
    """Return the attempts as text, one a line."""
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
