"""The verdicts on job and lane after an outcome: tables, and design promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from harasocial_dispatch.schemas import (
    Delivery,
    JobVerdict,
    LaneVerdict,
    Outcome,
    OutcomeClass,
    Settings,
    State,
)
from harasocial_dispatch.worker.outcome.policy import (
    MAX_LANE_PAUSE_SECONDS,
    backoff_seconds,
    judge_job,
    judge_lane,
    pause_seconds,
)
from hypothesis import assume, given
from hypothesis import strategies as st

accepted, permanent, transient, throttled, app_throttled, restricted, auth, ambiguous = (
    OutcomeClass.ACCEPTED,
    OutcomeClass.PERMANENT,
    OutcomeClass.TRANSIENT,
    OutcomeClass.THROTTLED,
    OutcomeClass.APP_THROTTLED,
    OutcomeClass.RESTRICTED,
    OutcomeClass.AUTH,
    OutcomeClass.AMBIGUOUS,
)
ONCE, AT_LEAST = Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE
SETTINGS = Settings(max_attempts=3, retry_base_seconds=2.0, retry_max_seconds=60.0)
HOUR = 3600.0

SENT = JobVerdict(state=State.SENT)
FAILED = JobVerdict(state=State.FAILED)
FAILED_UNSPENT = JobVerdict(state=State.FAILED, attempt_spent=False)
QUEUED = JobVerdict(state=State.QUEUED, attempt_spent=False)


def retrying(seconds: float) -> JobVerdict:
    return JobVerdict(state=State.RETRYING, delay_seconds=seconds)


def judge(
    outcome: Outcome,
    delivery: Delivery = AT_LEAST,
    spent: int = 0,
    remaining: float = HOUR,
    jitter: float = 0.5,
) -> JobVerdict:
    return judge_job(
        outcome,
        delivery=delivery,
        attempts_spent=spent,
        remaining_seconds=remaining,
        settings=SETTINGS,
        jitter=jitter,
    )


@pytest.mark.parametrize(
    ("outcome_class", "delivery", "spent", "expected"),
    [
        (accepted, AT_LEAST, 0, SENT),
        (accepted, ONCE, 2, SENT),
        (permanent, AT_LEAST, 0, FAILED),
        (permanent, ONCE, 0, FAILED),
        (auth, AT_LEAST, 0, FAILED),
        (auth, ONCE, 0, FAILED),
        (transient, AT_LEAST, 0, retrying(1.0)),
        (transient, AT_LEAST, 1, retrying(2.0)),
        (transient, AT_LEAST, 2, FAILED),
        (transient, ONCE, 0, retrying(1.0)),
        (ambiguous, AT_LEAST, 0, retrying(1.0)),
        (ambiguous, AT_LEAST, 2, FAILED),
        (ambiguous, ONCE, 0, FAILED),
        (throttled, AT_LEAST, 0, QUEUED),
        (throttled, AT_LEAST, 2, QUEUED),
        (throttled, ONCE, 99, QUEUED),
    ],
)
def test_each_class_has_the_job_verdict_of_its_row(
    outcome_class: OutcomeClass, delivery: Delivery, spent: int, expected: JobVerdict
) -> None:
    """Three attempts are allowed. `spent` is the number before this one."""
    assert judge(Outcome(outcome_class=outcome_class), delivery, spent) == expected


@pytest.mark.parametrize(
    ("outcome_class", "asked", "remaining", "expected"),
    [
        (transient, 0.0, HOUR, retrying(1.0)),
        (transient, 30.0, HOUR, retrying(30.0)),
        (transient, 30.0, 30.0, FAILED),
        (transient, 30.0, 30.1, retrying(30.0)),
        (transient, None, 1.0, FAILED),
        (transient, None, 1.1, retrying(1.0)),
        (transient, None, -5.0, FAILED),
        (ambiguous, 30.0, HOUR, retrying(30.0)),
        (ambiguous, 30.0, 20.0, FAILED),
        (throttled, 30.0, HOUR, QUEUED),
        (app_throttled, 30.0, HOUR, QUEUED),
        (restricted, None, HOUR, QUEUED),
        (throttled, HOUR, HOUR, FAILED_UNSPENT),
        (throttled, 1e300, 1e9, FAILED_UNSPENT),
        (throttled, None, 0.5, QUEUED),
        (throttled, HOUR, 10 * HOUR, QUEUED),
        (
            throttled,
            HOUR + 1,
            10 * HOUR,
            JobVerdict(state=State.RETRYING, delay_seconds=HOUR + 1, attempt_spent=False),
        ),
    ],
)
def test_retry_after_and_the_deadline_are_both_respected(
    outcome_class: OutcomeClass, asked: float | None, remaining: float, expected: JobVerdict
) -> None:
    """A retry does not start before `Retry-After`. A retry after the deadline never starts."""
    outcome = Outcome(outcome_class=outcome_class, retry_after_seconds=asked)
    assert judge(outcome, remaining=remaining) == expected


def test_a_message_that_was_sent_despite_an_error_is_not_retried() -> None:
    """It applies to both kinds of delivery."""
    assert judge(Outcome(outcome_class=ambiguous, final=True), AT_LEAST) == FAILED


@pytest.mark.parametrize("outcome_class", [permanent, auth])
def test_an_outcome_without_a_post_spends_no_attempt(outcome_class: OutcomeClass) -> None:
    """The job is invalid, or its page has no token."""
    assert judge(Outcome(outcome_class=outcome_class, posted=False)) == FAILED_UNSPENT


AUTH_PAUSE = LaneVerdict(effect="pause", reason="auth", pause_seconds=60.0)
NOTHING = LaneVerdict(effect="none")
SUCCESS = LaneVerdict(effect="success")
ANSWER = LaneVerdict(effect="answer")
APP_PAUSE = LaneVerdict(effect="pause_token", reason="app_throttled", pause_seconds=1.0)


def throttled_for(seconds: float) -> LaneVerdict:
    return LaneVerdict(effect="pause", reason="throttled", pause_seconds=seconds)


def restricted_for(seconds: float) -> LaneVerdict:
    return LaneVerdict(effect="pause", reason="restricted", pause_seconds=seconds)


def failing_for(seconds: float) -> LaneVerdict:
    return LaneVerdict(effect="count", reason="failing", pause_seconds=seconds)


def refused_for(seconds: float) -> LaneVerdict:
    return LaneVerdict(effect="count", reason="refused", pause_seconds=seconds)


@pytest.mark.parametrize(
    ("outcome", "level", "expected"),
    [
        (Outcome(outcome_class=accepted), 0, SUCCESS),
        (Outcome(outcome_class=accepted), 3, SUCCESS),
        (Outcome(outcome_class=permanent), 0, ANSWER),
        (Outcome(outcome_class=permanent, about_page=True), 0, refused_for(1800.0)),
        (Outcome(outcome_class=permanent, about_page=True), 1, refused_for(3600.0)),
        (Outcome(outcome_class=permanent, about_page=True), 99, refused_for(14_400.0)),
        (Outcome(outcome_class=permanent, posted=False), 1, NOTHING),
        (Outcome(outcome_class=transient), 0, failing_for(1.0)),
        (Outcome(outcome_class=transient), 1, failing_for(2.0)),
        (Outcome(outcome_class=transient), 99, failing_for(30.0)),
        (Outcome(outcome_class=ambiguous), 2, failing_for(4.0)),
        (Outcome(outcome_class=transient, about_person=True), 2, ANSWER),
        (Outcome(outcome_class=permanent, about_person=True), 0, ANSWER),
        (Outcome(outcome_class=restricted), 0, restricted_for(1800.0)),
        (Outcome(outcome_class=restricted), 2, restricted_for(7200.0)),
        (Outcome(outcome_class=restricted), 99, restricted_for(14_400.0)),
        (Outcome(outcome_class=restricted, retry_after_seconds=5.0), 0, restricted_for(1800.0)),
        (Outcome(outcome_class=restricted, retry_after_seconds=1e9), 0, restricted_for(14_400.0)),
        (Outcome(outcome_class=throttled), 0, throttled_for(1.0)),
        (Outcome(outcome_class=app_throttled), 5, APP_PAUSE),
        (Outcome(outcome_class=throttled), 1, throttled_for(2.0)),
        (Outcome(outcome_class=throttled), 99, throttled_for(60.0)),
        (Outcome(outcome_class=throttled, retry_after_seconds=7.5), 3, throttled_for(7.5)),
        (Outcome(outcome_class=throttled, retry_after_seconds=0.0), 0, throttled_for(1.0)),
        (Outcome(outcome_class=throttled, retry_after_seconds=0.0), 3, throttled_for(8.0)),
        (
            Outcome(outcome_class=throttled, retry_after_seconds=1e9),
            0,
            throttled_for(MAX_LANE_PAUSE_SECONDS),
        ),
        (Outcome(outcome_class=throttled, posted=False), 0, NOTHING),
        (Outcome(outcome_class=auth), 0, AUTH_PAUSE),
        (Outcome(outcome_class=auth, posted=False), 0, AUTH_PAUSE),
        (Outcome(outcome_class=auth), 2, replace(AUTH_PAUSE, pause_seconds=240.0)),
        (Outcome(outcome_class=auth), 99, replace(AUTH_PAUSE, pause_seconds=900.0)),
    ],
)
def test_each_class_has_the_lane_verdict_of_its_row(
    outcome: Outcome, level: int, expected: LaneVerdict
) -> None:
    """`level` is the number of consecutive pauses of the lane when the job was claimed."""
    assert judge_lane(outcome, consecutive_pauses=level) == expected


def test_the_fingerprint_of_a_refused_token_is_recorded() -> None:
    """Another token can then end the pause at once."""
    found = judge_lane(Outcome(outcome_class=auth), consecutive_pauses=0, token_fingerprint="abc")
    assert found.token_fingerprint == "abc"


@pytest.mark.parametrize(
    ("spent", "jitter", "expected"),
    [
        (1, 1.0, 2.0),
        (2, 1.0, 4.0),
        (3, 1.0, 8.0),
        (5, 1.0, 32.0),
        (6, 1.0, 60.0),
        (1_000_000, 1.0, 60.0),
        (3, 0.25, 2.0),
        (3, 0.0, 0.0),
    ],
)
def test_the_backoff_doubles_up_to_the_cap(spent: int, jitter: float, expected: float) -> None:
    """The base is 2 s and the cap is 60 s. The jitter is a factor."""
    assert backoff_seconds(spent, base=2.0, cap=60.0, jitter=jitter) == expected


@pytest.mark.parametrize("reason", ["throttled", "auth", "failing", "restricted", "refused"])
def test_the_pauses_of_a_lane_grow_to_a_maximum(reason: str) -> None:
    """Each pause is at least as long as the previous one, up to a maximum."""
    pauses = [pause_seconds(reason, level) for level in range(1, 2000)]
    assert pauses == sorted(pauses)
    assert pauses[1] == 2 * pauses[0]
    assert pauses[-1] == pauses[-2] <= 4 * HOUR


waits = st.none() | st.floats(0, allow_infinity=False, allow_nan=False)
outcomes = st.builds(
    Outcome,
    outcome_class=st.sampled_from(OutcomeClass),
    retry_after_seconds=waits,
    posted=st.booleans(),
    final=st.booleans(),
    error_code=st.just("code"),
)
deliveries = st.sampled_from(Delivery)
jitters = st.floats(0, 1, exclude_max=True)
remainings = st.floats(-1e9, 1e9)
any_settings = st.builds(
    Settings,
    max_attempts=st.integers(1, 100),
    retry_base_seconds=st.floats(0.01, 3600),
    retry_max_seconds=st.floats(0.01, 86_400),
)


@given(st.integers(1, 10**9), st.floats(0.01, 3600), st.floats(0.01, 86_400), jitters)
def test_the_backoff_is_never_negative_and_never_above_the_cap(
    spent: int, base: float, cap: float, jitter: float
) -> None:
    """The limits apply even after a billion attempts."""
    found = backoff_seconds(spent, base=base, cap=cap, jitter=jitter)
    assert 0 <= found <= cap
    assert found <= backoff_seconds(spent + 1, base=base, cap=cap, jitter=jitter)


@given(outcomes, deliveries, st.integers(0, 200), remainings, any_settings, jitters)
def test_promises_4_5_and_7_hold_for_every_outcome(
    outcome: Outcome,
    delivery: Delivery,
    spent: int,
    remaining: float,
    settings: Settings,
    jitter: float,
) -> None:
    """Refusals are final, retries respect deadlines, and throttling spends no attempts."""
    found = judge_job(
        outcome,
        delivery=delivery,
        attempts_spent=spent,
        remaining_seconds=remaining,
        settings=settings,
        jitter=jitter,
    )
    outcome_class = outcome.outcome_class
    again = found.state in (State.RETRYING, State.QUEUED)
    assert (found.state is State.SENT) == (outcome_class is accepted)
    assert not again or outcome_class not in (accepted, permanent, auth)
    if outcome_class in (throttled, app_throttled, restricted):
        assert not found.attempt_spent
    elif again:
        assert found.attempt_spent, "otherwise a job could be retried forever"
        assert spent + 1 < settings.max_attempts
        assert found.state is State.RETRYING
    if found.state is State.RETRYING:
        assert (outcome.retry_after_seconds or 0) <= found.delay_seconds < remaining
    if again and outcome.retry_after_seconds:
        assert outcome.retry_after_seconds < remaining
    if outcome_class is ambiguous and (delivery is ONCE or outcome.final):
        assert found.state is State.FAILED


@given(outcomes, st.integers(0, 10**6))
def test_the_pause_of_a_lane_is_limited(outcome: Outcome, level: int) -> None:
    """A pause is at most four hours, is never 0, and only follows from outcomes about the page."""
    found = judge_lane(outcome, consecutive_pauses=level, token_fingerprint="abc")
    assert 0 <= found.pause_seconds <= 4 * HOUR
    if found.effect in ("pause", "pause_token", "count"):
        assert found.pause_seconds > 0
        assert found.reason
    assert (found.effect == "success") == (outcome.posted and outcome.outcome_class is accepted)
    assert (found.token_fingerprint == "abc") == (outcome.outcome_class is auth)


@given(outcomes, st.floats(0.01, MAX_LANE_PAUSE_SECONDS), st.integers(0, 100))
def test_a_throttled_lane_waits_for_retry_after(outcome: Outcome, asked: float, level: int) -> None:
    """A valid time is used exactly."""
    assume(outcome.posted)
    outcome = replace(outcome, outcome_class=throttled, retry_after_seconds=asked)
    assert judge_lane(outcome, consecutive_pauses=level).pause_seconds == asked
