"""Decide what follows from an outcome, for the job and for its page's lane. Pure functions.

Randomness is passed as `jitter`, a number from 0 to 1. Time is passed as remaining seconds.
"""

from __future__ import annotations

from ...ledger import Claim, Result
from ...schemas import Delivery, JobVerdict, LaneVerdict, Outcome, OutcomeClass, Settings, State

#: Maximum pause of a lane. A wrong `Retry-After`, such as a year, must not stop the whole page.
#: Only the job itself waits longer.
MAX_LANE_PAUSE_SECONDS = 3600.0

#: First and longest pause (seconds) of a lane by reason, if the reply has no `Retry-After`.
_PAUSES = {
    "throttled": (1.0, 60.0),
    "restricted": (1800.0, 14_400.0),
    "refused": (1800.0, 14_400.0),
    "auth": (60.0, 900.0),
    "failing": (1.0, 30.0),
}

#: The verdicts of most outcomes.
_SENT, _SUCCESS = JobVerdict(state=State.SENT), LaneVerdict(effect="success")

#: The classes that concern the page or token rather than the job.
_NOT_NOW = (OutcomeClass.THROTTLED, OutcomeClass.APP_THROTTLED, OutcomeClass.RESTRICTED)


def backoff_seconds(attempts_spent: int, *, base: float, cap: float, jitter: float) -> float:
    """Return the delay before the next attempt: exponential backoff with a cap and full jitter.

    Args:
        attempts_spent: at least 1.
        base: the maximum delay after the first attempt, in seconds. It doubles with each further
            attempt.
        cap: the maximum of all delays, in seconds.
        jitter: a uniform random number from 0 to 1, so that jobs that failed together are not
            retried together.
    """
    # Larger powers would overflow a float, and any cap is below this one.
    return jitter * min(cap, base * 2.0 ** min(attempts_spent - 1, 60))


def pause_seconds(reason: str, level: int) -> float:
    """Return the seconds of a pause; `level` is its number among consecutive pauses, from 1."""
    first, longest = _PAUSES[reason]
    return min(longest, first * 2.0 ** min(level - 1, 60))


def judge_job(
    outcome: Outcome,
    *,
    delivery: Delivery,
    attempts_spent: int,
    remaining_seconds: float,
    settings: Settings,
    jitter: float,
) -> JobVerdict:
    """Return the next state of the job.

    Args:
        attempts_spent: the number before this attempt.
        remaining_seconds: the time until the job's deadline.
    """
    outcome_class = outcome.outcome_class
    if outcome_class is OutcomeClass.ACCEPTED:
        return _SENT
    failed = JobVerdict(state=State.FAILED, attempt_spent=outcome.posted)
    if outcome_class in (OutcomeClass.PERMANENT, OutcomeClass.AUTH):
        return failed
    asked = outcome.retry_after_seconds or 0.0

    if outcome_class in _NOT_NOW:
        # A released job goes back to its lane. If it expires, it expires there.
        if asked >= remaining_seconds and (asked or outcome.posted):
            return JobVerdict(state=State.FAILED, attempt_spent=False)
        if asked > MAX_LANE_PAUSE_SECONDS:
            return JobVerdict(state=State.RETRYING, delay_seconds=asked, attempt_spent=False)
        return JobVerdict(state=State.QUEUED, attempt_spent=False)

    at_most_once = delivery is Delivery.AT_MOST_ONCE
    if outcome_class is OutcomeClass.AMBIGUOUS and (at_most_once or outcome.final):
        return failed
    if attempts_spent + 1 >= settings.max_attempts:
        return failed
    backoff = backoff_seconds(
        attempts_spent + 1,
        base=settings.retry_base_seconds,
        cap=settings.retry_max_seconds,
        jitter=jitter,
    )
    delay = max(backoff, asked)
    if delay >= remaining_seconds:
        return failed
    return JobVerdict(state=State.RETRYING, delay_seconds=delay)


def judge_lane(
    outcome: Outcome,
    *,
    consecutive_pauses: int,
    token_pauses: int = 0,
    token_fingerprint: str = "",
) -> LaneVerdict:
    """Return the effect of the outcome on the page's lane.

    Args:
        consecutive_pauses: of the lane, when the job was claimed.
        token_pauses: consecutive pauses of its token, when the job was claimed.
        token_fingerprint: of the used token.
    """
    level = consecutive_pauses + 1
    if outcome.outcome_class is OutcomeClass.AUTH:
        return LaneVerdict(
            effect="pause",
            reason="auth",
            pause_seconds=pause_seconds("auth", level),
            token_fingerprint=token_fingerprint,
        )
    if not outcome.posted:
        return LaneVerdict(effect="none")
    if outcome.outcome_class is OutcomeClass.RESTRICTED:
        # To send during a restriction makes it longer.
        pause = max(outcome.retry_after_seconds or 0.0, pause_seconds("restricted", level))
        return LaneVerdict(
            effect="pause",
            reason="restricted",
            pause_seconds=min(pause, _PAUSES["restricted"][1]),
        )
    if outcome.outcome_class in _NOT_NOW:
        # Even if the reply requests no wait (0, or a past date), the lane backs off. Throttled
        # POSTs spend no attempts, so nothing else would slow them down.
        of_token = outcome.outcome_class is OutcomeClass.APP_THROTTLED
        level = token_pauses + 1 if of_token else level
        pause = outcome.retry_after_seconds or pause_seconds("throttled", level)
        return LaneVerdict(
            effect="pause_token" if of_token else "pause",
            reason=str(outcome.outcome_class),
            pause_seconds=min(pause, MAX_LANE_PAUSE_SECONDS),
        )
    if outcome.outcome_class in (OutcomeClass.TRANSIENT, OutcomeClass.AMBIGUOUS):
        if outcome.about_person:
            return LaneVerdict(effect="answer")
        return LaneVerdict(
            effect="count",
            reason="failing",
            pause_seconds=pause_seconds("failing", level),
        )
    if outcome.outcome_class is OutcomeClass.ACCEPTED:
        return _SUCCESS
    if outcome.about_page:
        return LaneVerdict(
            effect="count",
            reason="refused",
            pause_seconds=pause_seconds("refused", level),
        )
    return LaneVerdict(effect="answer")


def judge(
    claim: Claim,
    outcome: Outcome,
    *,
    now: float,
    began: float | None = None,
    token_fingerprint: str = "",
    settings: Settings,
    jitter: float,
) -> Result:
    """Return the result to record for a claimed job.

    Args:
        now: when the outcome was determined (seconds, on the monotonic clock).
        began: when the call began, on the same clock; None if this process made no call.
        token_fingerprint: of the used token.
    """
    return Result(
        claim=claim,
        outcome=outcome,
        job_verdict=judge_job(
            outcome,
            delivery=claim.delivery,
            attempts_spent=claim.attempts_spent,
            remaining_seconds=claim.remaining_seconds - (now - claim.claimed_at),
            settings=settings,
            jitter=jitter,
        ),
        # The death of a worker does not concern the page.
        lane_verdict=LaneVerdict(effect="none")
        if claim.lease_ended
        else judge_lane(
            outcome,
            consecutive_pauses=claim.consecutive_pauses,
            token_pauses=claim.token_pauses,
            token_fingerprint=token_fingerprint,
        ),
        token_fingerprint=token_fingerprint,
        attempt_at_ms=claim.claimed_at_ms
        + round(1000 * ((now if began is None else began) - claim.claimed_at)),
        attempt_duration_ms=None if began is None else round(1000 * (now - began)),
    )
