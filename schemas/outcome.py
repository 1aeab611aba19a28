"""How one attempt ended, and what the ledger is to make of it."""

from __future__ import annotations

from dataclasses import dataclass

from .states import OutcomeClass, State


@dataclass(frozen=True, slots=True)
class CallLimit:
    """How full the API's leaky bucket is, from a reply's `X-Haravan-Api-Call-Limit: 32/80`.

    `limit` is at least 1, and `used` is from 0 to `limit`.
    """

    used: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one attempt (or the decision not to make one) ended.

    Attributes:
        outcome_class: which of the classes it is.
        error_code: the API's own, else ours in words; None only when accepted.
        error_message: one line for people without control characters, or None.
        http_status: of the reply, or None when there was none.
        retry_after_seconds: what the reply asked to wait, or None.
        posted: whether a POST may have gone out; then it counts as an attempt of the job.
        final: an ambiguous outcome that must not be tried again, whatever the delivery.
        about_page: a permanent refusal that may be about the page rather than the person: several
            in a row with the same code pause the page as `refused`.
        about_person: a failure that is about the person alone: it never pauses the page.
        call_limit: how full the API's bucket of calls is, where the reply said.
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
    """Where a job goes after an outcome.

    Attributes:
        state: SENT, FAILED, RETRYING or (throttled) QUEUED.
        delay_seconds: for RETRYING, how long from now.
        attempt_spent: whether the outcome counts against the job's attempts.
    """

    state: State
    delay_seconds: float = 0.0
    attempt_spent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneVerdict:
    """What an outcome means for the page's lane.

    Attributes:
        effect: "none"; "success"; "answer" (the page works, though this message was not accepted);
            "pause"; "pause_token" (every page of the token pauses); or "count" (a failure, or a
            refusal that may be about the page: several in a row pause the lane).
        reason: why the lane or token pauses: "throttled", "app_throttled", "restricted", "auth",
            "failing" or "refused".
        pause_seconds: how long the lane waits if it comes to a pause.
        token_fingerprint: of the refused token, so that another one ends the pause at once.
    """

    effect: str
    reason: str = ""
    pause_seconds: float = 0.0
    token_fingerprint: str = ""
