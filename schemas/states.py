"""The words for where a job stands, and for how one attempt ended."""

from __future__ import annotations

from enum import Enum


class State(str, Enum):
    """Where a job stands. Each says who moves it on, and when."""

    #: Waits for its `send_at`. The sweep moves it to QUEUED when that time has come.
    SCHEDULED = "scheduled"
    #: Waits in its page's lane. A pump's claim moves it to SENDING when the lane may send;
    #: if its deadline has passed by then, to FAILED (`expired`).
    QUEUED = "queued"
    #: Claimed by one process until its lease ends. The holder records the outcome (SENT, FAILED,
    #: RETRYING, or back to QUEUED when throttled); if the lease ends first, the sweep does.
    SENDING = "sending"
    #: Waits for its next attempt. The sweep moves it to QUEUED when that time has come.
    RETRYING = "retrying"
    #: Accepted by the API. Final; forgotten after `SENT_TTL_SECONDS`.
    SENT = "sent"
    #: Given up, with the reason in `error_code`. Only a replay moves it, back to QUEUED;
    #: forgotten after `FAILED_TTL_SECONDS`.
    FAILED = "failed"
    #: Called off before it was sent. Final; forgotten after `FAILED_TTL_SECONDS`.
    CANCELLED = "cancelled"

    def __str__(self) -> str:
        return self.value


class Delivery(str, Enum):
    """What to do when nobody can know whether a POST was processed."""

    #: Send again. The message may arrive twice, but is not lost.
    AT_LEAST_ONCE = "at_least_once"
    #: Give up. The message may be lost, but never arrives twice.
    AT_MOST_ONCE = "at_most_once"

    def __str__(self) -> str:
        return self.value


class OutcomeClass(str, Enum):
    """How one attempt ended. Every reply, and every way to get none, is exactly one of these."""

    #: The API took the message. The job is SENT.
    ACCEPTED = "accepted"
    #: The API, or this package, refused it for good. The job is FAILED and never retried.
    PERMANENT = "permanent"
    #: A passing fault before or instead of processing. RETRYING; an attempt is spent.
    TRANSIENT = "transient"
    #: Too fast. Back to QUEUED, no attempt spent, and the page's lane waits.
    THROTTLED = "throttled"
    #: As THROTTLED, and every page of the token waits.
    APP_THROTTLED = "app_throttled"
    #: Meta restricts the page. Back to QUEUED, no attempt spent, and the lane pauses for long.
    RESTRICTED = "restricted"
    #: The token is missing or refused. FAILED, and the page's lane pauses.
    AUTH = "auth"
    #: The message may or may not have been processed. As TRANSIENT, or FAILED at_most_once.
    AMBIGUOUS = "ambiguous"

    def __str__(self) -> str:
        return self.value
