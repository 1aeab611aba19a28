"""Forecast whether the messages of a page can be sent before their deadlines. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Load(NamedTuple):
    """Messages of one page that have the same times (milliseconds since the epoch).

    Attributes:
        jobs: number of messages.
        send_at_ms: earliest time to send; 0 for now.
        expires_at_ms: a message whose turn comes at this time or later is not sent.
    """

    jobs: int
    send_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The forecast for a page's messages at a constant rate.

    Attributes:
        sending_seconds: time needed for the messages that do not expire, without pauses.
        ends_at_ms: when the last of them is sent; the time of the forecast if there is none.
        will_expire: number of messages whose deadline passes before their turn.
    """

    sending_seconds: float
    ends_at_ms: int
    will_expire: int


def forecast(
    loads: Iterable[Load], *, rate: float, now_ms: int, waiting_count: int = 0
) -> Forecast:
    """Return when the messages of a page are sent, and how many expire first.

    Messages are sent in the order of their `send_at_ms`; if equal, in the order of `loads`. An
    expired message takes no time.

    Args:
        loads: the messages.
        rate: messages per second of the page; 0 means no limit: messages take no time.
        now_ms: when the sending begins.
        waiting_count: messages of the page that are sent first.
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
    """Return how many of `count` turns, every `interval_ms` from `begin_ms`, are in time."""
    if begin_ms >= deadline_ms:
        return 0
    if not interval_ms:
        return count
    return min(count, math.ceil((deadline_ms - begin_ms) / interval_ms))
