"""The pace of a page: never faster than its rate and burst allow, and hardly slower.

Hypothesis drives the claim script with its own clock: several claimers, at any times, with any
number of free slots, while an operator changes the rate.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import fakeredis
import pytest
import time_machine
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import (
    START_WITHIN_SECONDS,
    Outcome,
    OutcomeClass,
    Settings,
    parse_new_job,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.scenario import Scenario

#: Explaining a failure line by line would trace all of fakeredis.
FAST = settings(max_examples=30, phases=set(Phase) - {Phase.explain})
START = 1_769_851_800.0
ACCEPTED = Outcome(outcome_class=OutcomeClass.ACCEPTED)


def most_in_any_window(times_ms: list[int], window_ms: int) -> int:
    """Return the maximum number of times in one window; the times are in order."""
    ends = [bisect_right(times_ms, begin + window_ms) for begin in times_ms]
    return max((end - index for index, end in enumerate(ends)), default=0)


def claimed_at_once(rate: float, burst: int) -> float:
    """Return how many messages of a page a claim takes at once."""
    return max(1.0, burst - rate * START_WITHIN_SECONDS)


class Pages:
    """A ledger with one page that has more jobs than it can send, and several claimers."""

    def __init__(self, rate: float, burst: int, jobs: int) -> None:
        self.client = fakeredis.FakeRedis(decode_responses=True)
        made = Settings(namespace="test", page_rate=rate, page_burst=burst)
        self.claimers = [Ledger(made, client=self.client) for _ in range(2)]
        body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
        self.claimers[0].enqueue([parse_new_job(body)] * jobs)


rates = st.sampled_from([0.5, 3.0, 7.7, 20.0, 30.0, 39.0, 100.0])
bursts = st.sampled_from([1, 2, 5, 10, 40])
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 1, 7, 10, 33, 50, 201, 400]),  # ms to pass
        st.integers(0, 1),  # who claims
        st.integers(1, 60),  # for how many slots
        st.none() | st.none() | st.none() | st.tuples(rates, bursts),  # a new rate
    ),
    min_size=20,
    max_size=60,
)


@FAST
@given(rates, bursts, steps)
def test_no_second_has_more_than_the_burst_and_the_rate(
    rate: float, burst: int, steps: list[tuple[int, int, int, tuple[float, int] | None]]
) -> None:
    """It also holds where requests arrive, up to `START_WITHIN_SECONDS` after the claim.

    With several rates in one second, the highest rate and the highest burst are the limit.
    """
    with time_machine.travel(START, tick=False) as clock:
        pages = Pages(rate, burst, jobs=400)
        now_ms, claimed_ms, limits = 0, [], [(rate, burst)]
        for pass_ms, who, slots, change in steps:
            clock.shift(pass_ms / 1000)
            now_ms += pass_ms
            if change is not None:
                pages.claimers[who].set_rate("1", *change, by="test")
                limits.append(change)
            found = pages.claimers[who].claim(slots)
            claimed_ms += [now_ms] * len(found.claims)
    highest_rate = max(rate for rate, _ in limits)
    at_once = max(claimed_at_once(rate, burst) for rate, burst in limits)
    assert most_in_any_window(claimed_ms, 1000) <= at_once + highest_rate + 1e-6
    # Messages that arrive within one second may have been claimed within a longer time.
    window_ms = round(1000 * (1 + START_WITHIN_SECONDS))
    allowed = at_once + highest_rate * (1 + START_WITHIN_SECONDS)
    assert most_in_any_window(claimed_ms, window_ms) <= allowed + 1e-6
    if all(burst >= 1 + rate * START_WITHIN_SECONDS for rate, burst in limits):
        most = most_in_any_window(claimed_ms, window_ms)
        assert most <= max(burst for _, burst in limits) + highest_rate + 1e-6


def test_by_default_no_second_has_more_than_forty() -> None:
    """Design promise 13: above that, a page's inbox is disabled."""
    defaults = Settings()
    at_once = claimed_at_once(defaults.page_rate, defaults.page_burst)
    assert at_once + defaults.page_rate * (1 + START_WITHIN_SECONDS) <= 40


@pytest.mark.parametrize(("rate", "burst"), [(30.0, 10), (0.5, 2), (7.7, 3), (100.0, 25)])
@pytest.mark.parametrize("look_ms", [1, 10])
def test_the_permitted_rate_is_used(rate: float, burst: int, look_ms: int) -> None:
    """Two workers that claim every few milliseconds with few slots reach at least 95% of it."""
    seconds = max(2.0, 40 / rate)
    with time_machine.travel(START, tick=False) as clock:
        pages = Pages(rate, burst, jobs=round(rate * seconds) + burst + 10)
        passed_ms, sent = 0.0, 0
        while passed_ms < seconds * 1000:
            for claimer in pages.claimers:
                found = claimer.claim(8)
                sent += len(found.claims)
            wait_ms = max(look_ms, 1000 * (found.wait_seconds or 0))
            clock.shift(wait_ms / 1000)
            passed_ms += wait_ms
    assert sent >= 0.95 * rate * passed_ms / 1000
    assert sent <= rate * passed_ms / 1000 + burst


def test_a_recovering_page_sends_faster_step_by_step(
    make_scenario: Callable[..., Scenario],
) -> None:
    """The rate grows step by step to the page's own rate."""
    scenario = make_scenario(page_rate=30.0, page_burst=10)
    sent = recover(scenario, reason="throttled", periods=8, looks=20)
    assert sent[:4] == pytest.approx([2, 4, 8, 16], abs=2)
    assert all(count <= 34 for count in sent)
    assert sent[6] >= 29
    scenario.sweep()
    assert not scenario.client.exists(scenario.key("pauses")), "nothing is left of the pause"


def test_after_a_restriction_a_page_recovers_slowly(make_scenario: Callable[..., Scenario]) -> None:
    """It takes minutes, because more messages prolong a restriction."""
    scenario = make_scenario(page_rate=30.0, page_burst=10)
    sent = recover(scenario, reason="restricted", periods=90, looks=4)
    assert sum(sent[:60]) == pytest.approx(120, abs=5)
    assert sum(sent[60:90]) == pytest.approx(120, abs=5)


def recover(scenario: Scenario, reason: str, periods: int, looks: int) -> list[int]:
    """Have a page's probe succeed; return how many messages are sent in each second after that.

    There are `looks` claims in a second.
    """
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
    scenario.ledger.enqueue([parse_new_job(body)] * 3000)
    (first, *_) = scenario.claim(1)
    scenario.record(first, OutcomeClass(reason))
    scenario.wait(3600)
    (probe,) = scenario.claim()
    scenario.record(probe, OutcomeClass.ACCEPTED)
    sent = []
    for _ in range(periods):
        count = 0
        for _ in range(looks):
            claims = scenario.claim()
            count += len(claims)
            scenario.ledger.record([scenario.result(claim, ACCEPTED) for claim in claims])
            scenario.wait(1 / looks)
        sent.append(count)
    return sent
