"""Parse times on the command line: `2h`, `1d12h`, ISO dates; local time unless a zone is given."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+")
_SPAN_PART = re.compile(r"([0-9.]+)([smhdw])")


def parse_time(
    text: str, *, now: datetime, ahead: bool = False, end_of_day: bool = False
) -> datetime:
    """Parse a time; return it as an aware datetime.

    Args:
        text: a duration such as `30m`, `2h`, `1d12h` (units s, m, h, d, w), or ISO 8601: a date, or
            a date and time, in local time unless it has a zone.
        now: the start of a duration (aware).
        ahead: whether a duration goes into the future; otherwise into the past.
        end_of_day: whether a date means its last moment; otherwise its first.

    Raises:
        ValueError: `text` is not a time; the message has the expected form.
    """
    text = text.strip()
    try:
        if _SPAN.fullmatch(text):
            duration = parse_duration(text)
            return now + duration if ahead else now - duration
        try:
            day = date.fromisoformat(text)
        except ValueError:
            # Python 3.10 does not parse the suffix `Z`.
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        else:
            moment = datetime.combine(day, time.max if end_of_day else time.min)
        # astimezone() treats a time without a zone as local time.
        return moment.astimezone()
    except (ValueError, OverflowError, OSError):
        example = "2026-01-31 or '2026-01-31 09:30'"
        raise ValueError(
            f"{text!r} is not a time: expected a duration such as 30m, 2h or 1d, or {example}"
        ) from None


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as `30m`, `2h` or `1d12h` (units s, m, h, d, w).

    Raises:
        ValueError: `text` is not a duration; the message has the expected form.
    """
    text = text.strip()
    if not _SPAN.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: expected one such as 30m, 2h or 1d12h")
    try:
        return timedelta(
            seconds=sum(float(number) * _SECONDS[unit] for number, unit in _SPAN_PART.findall(text))
        )
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None
