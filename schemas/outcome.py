"""The outcome of an attempt, and the verdicts on its job and lane."""

from __future__ import annotations

from dataclasses import dataclass

from .states import OutcomeClass, State


@dataclass(frozen=True, slots=True)
class CallLimit:
    """The level of the API's leaky bucket, from the header `X-Haravan-Api-Call-Limit: 32/80`.

    `limit` is at least 1, and `used` is from 0 to `limit`.
    """

    used: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of an attempt, or of the decision not to make one.

    Attributes:
        outcome_class: its class.
        error_code: the API's code, or one of this package's codes; None only if accepted.
        error_message: one line of text without control characters, or None.
        http_status: the reply's status, or None without a reply.
        retry_after_seconds: the wait that the reply requested, or None.
        posted: whether a POST may have gone out. It then counts as an attempt of the job.
        final: whether an ambiguous outcome must not be retried, whatever the delivery.
        about_page: whether a permanent refusal may be about the page rather than the person.
            Several in a row with the same code pause the page as `refused`.
        about_person: whether a failure is only about the person. It then never pauses the page.
        call_limit: the level of the API's call bucket, if the reply has it.
    """

    outcome_class: OutcomeClass
    error_code: str | None = None
    error_message: str | None = None
    http_status: int | None = None
    retry_after_seconds: float | None = None
    posted: bool = True
    final: bool = False
    about_page: bool = False
    about_person: bool = False
    call_limit: CallLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobVerdict:
    """The next state of a job after an outcome.

    Attributes:
        state: SENT, FAILED, RETRYING or (if throttled) QUEUED.
        delay_seconds: for RETRYING, the time until the next attempt.
        attempt_spent: whether the outcome counts against the job's attempts.
    """

    state: State
    delay_seconds: float = 0.0
    attempt_spent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneVerdict:
    """The effect of an outcome on the page's lane.

    Attributes:
        effect: "none"; "success"; "answer" (the page works, but this message was not accepted);
            "pause"; "pause_token" (every page of the token pauses); or "count" (a failure, or a
            refusal that may be about the page: several in a row pause the lane).
        reason: why the lane or token pauses: "throttled", "app_throttled", "restricted", "auth",
            "failing" or "refused".
        pause_seconds: the duration of the pause, if there is one.
        token_fingerprint: the fingerprint of the refused token. Another token ends the pause at
            once.
    """

    effect: str
    reason: str = ""
    pause_seconds: float = 0.0
    token_fingerprint: str = ""
