"""Forecasts: whether the messages of a page can be sent before their deadlines."""

from __future__ import annotations

import pytest
from harasocial_dispatch.producer.forecast import Load, forecast
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000_000
SECOND, HOUR = 1000, 3_600_000
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("loads", "rate", "waiting", "seconds", "ends_in", "expire"),
    [
        # An empty forecast ends immediately.
        ([], 20, 0, 0, 0, 0),
        # 31,000 messages at 20 per second take 26 minutes.
        ([Load(31_000, 0, NOW + DAY)], 20, 0, 1550, 1550, 0),
        # Waiting messages are sent first.
        ([Load(100, 0, NOW + DAY)], 10, 50, 10, 15, 0),
        # One hour at 1 per second is enough for 3,600 messages.
        ([Load(7_700, 0, NOW + HOUR)], 1, 0, 3600, 3600, 4_100),
        ([Load(3_600, 0, NOW + HOUR)], 1, 0, 3600, 3600, 0),
        ([Load(3_601, 0, NOW + HOUR)], 1, 0, 3600, 3600, 1),
        # A message that is due exactly at its deadline expires.
        ([Load(1, 0, NOW)], 1, 0, 0, 0, 1),
        ([Load(1, 0, NOW + 1)], 1, 0, 1, 1, 0),
        ([Load(5, 0, NOW - HOUR)], 0, 0, 0, 0, 5),
        # Without a rate limit, sending takes no time.
        ([Load(10**6, 0, NOW + 1)], 0, 10**6, 0, 0, 0),
        # A scheduled message is sent after the messages that are due earlier.
        ([Load(10, NOW + HOUR, NOW + DAY), Load(10, 0, NOW + DAY)], 1, 0, 20, 3610, 0),
        # A scheduled message waits for earlier messages that are not sent yet.
        ([Load(10, NOW + 5 * SECOND, NOW + DAY), Load(10, 0, NOW + DAY)], 1, 0, 20, 20, 0),
        # An expired message does not delay the next ones.
        ([Load(100, 0, NOW + 10 * SECOND), Load(10, 0, NOW + 20 * SECOND)], 1, 0, 20, 20, 90),
        # A send_at in the past is ignored: the order is the order of the file.
        ([Load(9, 0, NOW + 9 * SECOND), Load(9, NOW - HOUR, NOW + 9 * SECOND)], 1, 0, 9, 9, 9),
    ],
)
def test_a_forecast(
    loads: list[Load], rate: int, waiting: int, seconds: int, ends_in: int, expire: int
) -> None:
    """All times are in seconds from now."""
    found = forecast(loads, rate=rate, now_ms=NOW, waiting_count=waiting)
    assert found.sending_seconds == pytest.approx(seconds)
    assert found.ends_at_ms - NOW == pytest.approx(ends_in * SECOND)
    assert found.will_expire == expire


@given(
    st.lists(
        st.builds(
            Load,
            st.integers(0, 500),
            st.integers(NOW - 60_000, NOW + 60_000),
            st.integers(NOW - 60_000, NOW + 120_000),
        ),
        max_size=6,
    ),
    st.sampled_from([0.5, 1, 3, 30, 1000]),
    st.integers(0, 100),
)
def test_a_forecast_equals_a_simulation(loads: list[Load], rate: float, waiting: int) -> None:
    """Compare with a simulation that sends one message per interval and skips expired ones."""
    free_at = NOW + waiting * 1000 / rate
    expired = 0
    for load in sorted(loads, key=lambda load: max(load.send_at_ms, NOW)):
        for _ in range(load.jobs):
            turn = max(free_at, load.send_at_ms)
            if turn >= load.expires_at_ms - 1e-6:
                expired += 1
            else:
                free_at = turn + 1000 / rate
    found = forecast(loads, rate=rate, now_ms=NOW, waiting_count=waiting)
    # Sums of many intervals differ in their last digits.
    assert abs(found.will_expire - expired) <= len(loads)
