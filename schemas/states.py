"""The states of a job, and the classes of outcomes."""

from __future__ import annotations

from enum import Enum


class StrEnum(str, Enum):
    """An enumeration of texts, as `enum.StrEnum` of Python 3.11."""

    def __str__(self) -> str:
        return str(self.value)


class State(StrEnum):
    """The state of a job."""

    #: Waits for its `send_at`. The sweep moves it to QUEUED when it is due.
    SCHEDULED = "scheduled"
    #: Waits in its page's lane. A claim moves it to SENDING when the lane may send. If its deadline
    #: has passed, it becomes FAILED (`expired`).
    QUEUED = "queued"
    #: Claimed by one process until its lease ends. The claim's owner records the outcome, which is
    #: SENT, FAILED, RETRYING, or QUEUED again if throttled. If the lease ends first, the sweep
    #: records the outcome.
    SENDING = "sending"
    #: Waits for its next attempt. The sweep moves it to QUEUED when it is due.
    RETRYING = "retrying"
    #: Accepted by the API. Final. Deleted after `SENT_TTL_SECONDS`.
    SENT = "sent"
    #: Failed, with the reason in `error_code`. A replay moves it to QUEUED. Deleted after
    #: `FAILED_TTL_SECONDS`.
    FAILED = "failed"
    #: Canceled before it was sent. Final. Deleted after `FAILED_TTL_SECONDS`.
    CANCELLED = "cancelled"

    @property
    def label(self) -> str:
        """The state in texts for people, in American spelling."""
        return "canceled" if self is State.CANCELLED else self.value


class Delivery(StrEnum):
    """What to do if the outcome of a POST is unknown."""

    #: Send again. The message may arrive twice, but it is not lost.
    AT_LEAST_ONCE = "at_least_once"
    #: Fail the job. The message may be lost, but it never arrives twice.
    AT_MOST_ONCE = "at_most_once"


class OutcomeClass(StrEnum):
    """The class of an outcome. Every reply, and every failed call, has exactly one class."""

    #: The API accepted the message. The job is SENT.
    ACCEPTED = "accepted"
    #: The API or this package refused the message permanently. The job is FAILED, without a retry.
    PERMANENT = "permanent"
    #: A temporary failure; the message was not processed. The job is RETRYING, and the attempt is
    #: spent.
    TRANSIENT = "transient"
    #: The page sends too fast. The job is QUEUED again, no attempt is spent, and the lane pauses.
    THROTTLED = "throttled"
    #: As THROTTLED, but every page of the token pauses.
    APP_THROTTLED = "app_throttled"
    #: Meta restricts the page. The job is QUEUED again, no attempt is spent, and the lane pauses
    #: for a long time.
    RESTRICTED = "restricted"
    #: The token is missing or refused. The job is FAILED, and the page's lane pauses.
    AUTH = "auth"
    #: The message may have been processed. The job is RETRYING, or FAILED with `at_most_once`.
    AMBIGUOUS = "ambiguous"
