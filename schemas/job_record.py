"""The record of a job, as commands and programs get it from the ledger."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .states import Delivery, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One POST. With `unknown_outcome`, the POST may not have been made.

    Attributes:
        at: when it began, in UTC.
        duration_ms: its duration in milliseconds; None if its end was not observed.
    """

    at: datetime
    duration_ms: int | None = None
    http_status: int | None = None
    error_code: str | None = None
    error_message: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `show --json` prints."""
        return {
            "at": iso_utc(self.at),
            "duration_ms": self.duration_ms,
            "http_status": self.http_status,
            "error_code": self.error_code,
            "error_message": self.error_message,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRecord:
    """One replay of a job.

    Attributes:
        at: when the job was queued again, in UTC.
        by: who replayed it: `user@host`, or the Flower login.
        via: "cli", "flower" or "python".
        attempt_count: attempts spent before the replay.
    """

    at: datetime
    by: str
    via: str
    attempt_count: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `show --json` prints."""
        return {"at": iso_utc(self.at), "by": self.by, "via": self.via}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job: its message, its state, and its attempts. Times are in UTC.

    Attributes:
        job: the body as sent; for a job that is not valid, the part that could be read.
        attempt_count: attempts spent. Throttled POSTs spend none.
        attempts: the latest attempts, at most 50, oldest first.
        replays: the latest replays, at most 20, oldest first.
        next_attempt_at: when a scheduled or retrying job is due; None in other states.
    """

    job_id: str
    state: State
    page_id: str | None
    job: dict[str, Any]
    error_code: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    attempt_count: int = 0
    attempts: tuple[Attempt, ...] = field(default=())
    replays: tuple[ReplayRecord, ...] = field(default=())
    idempotency_key: str | None = None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    enqueued_at: datetime | None = None
    send_at: datetime | None = None
    expires_at: datetime | None = None
    next_attempt_at: datetime | None = None
    finished_at: datetime | None = None
    campaign: str | None = None

    @property
    def first_kept_attempt(self) -> int:
        """Return the number of the oldest attempt in `attempts`, counted from 1."""
        return max(0, self.attempt_count - len(self.attempts)) + 1

    def history(self) -> list[tuple[int, Attempt | ReplayRecord]]:
        """Return attempts and replays in their order, each with a number of attempts.

        That is an attempt's own number, or how many attempts were spent before a replay. Times do
        not decide: two events may have the same millisecond.
        """
        replays = [(replay.attempt_count, replay) for replay in self.replays]
        attempts = enumerate(self.attempts, start=self.first_kept_attempt)
        # The sort is stable: a replay comes after the last attempt before it.
        return sorted([*attempts, *replays], key=lambda numbered: numbered[0])

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `show --json` prints: times in ISO 8601, in UTC."""
        return {
            "job_id": self.job_id,
            "state": self.state.value,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "http_status": self.http_status,
            "attempt_count": self.attempt_count,
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "replays": [replayed.as_json() for replayed in self.replays],
            "page_id": self.page_id,
            "campaign": self.campaign,
            "job": self.job,
            "idempotency_key": self.idempotency_key,
            "delivery": self.delivery.value,
            "enqueued_at": iso_utc(self.enqueued_at),
            "send_at": iso_utc(self.send_at),
            "expires_at": iso_utc(self.expires_at),
            "next_attempt_at": iso_utc(self.next_attempt_at),
            "finished_at": iso_utc(self.finished_at),
        }


def from_ms(milliseconds: int) -> datetime:
    """Return the time `milliseconds` after the epoch, in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)


def from_stored(milliseconds: int | None) -> datetime | None:
    """Return a time read from Redis, or None if it is missing or outside the calendar."""
    try:
        return None if milliseconds is None else from_ms(milliseconds)
    except (ValueError, OverflowError, OSError):
        return None  # written by another client


def iso_utc(time: datetime | None) -> str | None:
    """Format `time` as ISO 8601 in UTC with milliseconds, such as `2026-01-31T09:30:00.250Z`."""
    if time is None:
        return None
    text = time.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
