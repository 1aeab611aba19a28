"""Forecasts whether the messages of a page can be sent before their deadlines. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Load(NamedTuple):
    """Messages of one page that have the same times (milliseconds since the epoch).

    Attributes:
        jobs: how many.
        send_at_ms: earliest time to send; 0 is at once.
        expires_at_ms: a message whose turn comes at this time or later is not sent.
    """

    jobs: int
    send_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What becomes of a page's messages at a steady rate.

    Attributes:
        sending_seconds: how long the messages that do not expire take, without any pauses.
        ends_at_ms: when the last of them is sent; the time of the forecast if there is none.
        will_expire: messages whose deadline passes before their turn.
    """

    sending_seconds: float
    ends_at_ms: int
    will_expire: int


def forecast(
    loads: Iterable[Load], *, rate: float, now_ms: int, waiting_count: int = 0
) -> Forecast:
    """Return when the messages of a page are sent, and how many expire before that.

    Messages are sent in the order of their `send_at_ms`, and of `loads` where that is equal. One
    that has expired takes no time.

    Args:
        loads: the messages.
        rate: messages a second that the page may send; 0 is no limit, and then none takes time.
        now_ms: when the sending begins.
        waiting_count: messages of the page that go before them.
    """
    interval_ms = 1000 / rate if rate else 0.0
    free_at_ms = now_ms + waiting_count * interval_ms
    ends_at_ms = float(now_ms)
    sent_count = expired_count = 0
    for load in sorted(loads, key=lambda load: max(load.send_at_ms, now_ms)):
        begin_ms = max(free_at_ms, load.send_at_ms)
        in_time = _turns_before(load.expires_at_ms, begin_ms, interval_ms, load.jobs)
        expired_count += load.jobs - in_time
        if in_time:
            sent_count += in_time
            free_at_ms = begin_ms + in_time * interval_ms
            ends_at_ms = free_at_ms
    return Forecast(
        sending_seconds=sent_count * interval_ms / 1000,
        ends_at_ms=round(ends_at_ms),
        will_expire=expired_count,
    )


def _turns_before(deadline_ms: int, begin_ms: float, interval_ms: float, count: int) -> int:
    """Return how many of `count` turns, one each `interval_ms` from `begin_ms`, are in time."""
    if begin_ms >= deadline_ms:
        return 0
    if not interval_ms:
        return count
    return min(count, math.ceil((deadline_ms - begin_ms) / interval_ms))
