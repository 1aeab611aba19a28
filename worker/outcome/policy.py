"""What follows from an outcome, for the job and for its page's lane. Pure functions.

Chance comes in as `jitter`, a number from 0 up to 1; time as seconds that remain.
"""

from __future__ import annotations

from ...ledger import Claim, Result
from ...schemas import Delivery, JobVerdict, LaneVerdict, Outcome, OutcomeClass, Settings, State

#: A lane never pauses longer: a nonsensical `Retry-After` of a year must not silence a page. The
#: one job that was told to wait longer waits by itself.
MAX_LANE_PAUSE_SECONDS = 3600.0

#: First pause and longest pause (seconds) of a lane, by reason, where the reply names none.
_PAUSES = {
    "throttled": (1.0, 60.0),
    "restricted": (1800.0, 14_400.0),
    "refused": (1800.0, 14_400.0),
    "auth": (60.0, 900.0),
    "failing": (1.0, 30.0),
}

#: The classes that say that nobody should send now, not that this job failed.
_NOT_NOW = (OutcomeClass.THROTTLED, OutcomeClass.APP_THROTTLED, OutcomeClass.RESTRICTED)


def backoff_seconds(attempts_spent: int, *, base: float, cap: float, jitter: float) -> float:
    """Return how long to wait before the next attempt: exponential, capped, with full jitter.

    Args:
        attempts_spent: at least 1.
        base: the longest wait after the first attempt, in seconds; doubles with each further one.
        cap: the longest wait of all, in seconds.
        jitter: from 0 up to 1, evenly spread, so that jobs that failed together do not come back
            together.
    """
    # Beyond 2 to the 60th, any cap has long been reached; larger powers overflow a float.
    return jitter * min(cap, base * 2.0 ** min(attempts_spent - 1, 60))


def pause_seconds(reason: str, level: int) -> float:
    """Return how long a lane pauses for the `level`-th time in a row (from 1), in seconds."""
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
    """Return where the job goes.

    Args:
        attempts_spent: before this one.
        remaining_seconds: until the job's deadline.
    """
    failed = JobVerdict(state=State.FAILED, attempt_spent=outcome.posted)
    outcome_class = outcome.outcome_class
    if outcome_class is OutcomeClass.ACCEPTED:
        return JobVerdict(state=State.SENT)
    if outcome_class in (OutcomeClass.PERMANENT, OutcomeClass.AUTH):
        return failed
    asked = outcome.retry_after_seconds or 0.0

    if outcome_class in _NOT_NOW:
        # A job that was released unsent expires in its lane, if it does.
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
    """Return what the outcome means for the page.

    Args:
        consecutive_pauses: of the lane when the job was claimed.
        token_pauses: of its token (likewise).
        token_fingerprint: of the token that was used.
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
        # Sending into a restriction makes it longer.
        pause = max(outcome.retry_after_seconds or 0.0, pause_seconds("restricted", level))
        return LaneVerdict(
            effect="pause",
            reason="restricted",
            pause_seconds=min(pause, _PAUSES["restricted"][1]),
        )
    if outcome.outcome_class in _NOT_NOW:
        # Asked to wait no time at all (0, or a date that has passed), the lane still backs off:
        # throttled POSTs spend no attempts, so nothing else would ever slow them down.
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
        return LaneVerdict(effect="success")
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
    """Return what is recorded of a claimed job.

    Args:
        now: when the outcome became known (seconds, on the monotonic clock).
        began: when its call began (likewise); None if this process made none.
        token_fingerprint: of the token that was used.
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
        # The death of a worker says nothing about the page.
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
