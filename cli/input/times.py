"""Times on the command line: `2h`, `1d12h`, ISO dates; in the local zone unless they name one."""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

import click

from ..output.times import local

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SPAN = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+")
_SPAN_PART = re.compile(r"([0-9.]+)([smhdw])")


def parse_time(
    text: str, *, now: datetime, ahead: bool = False, end_of_day: bool = False
) -> datetime:
    """Return the time that `text` stands for, aware.

    Args:
        text: a span such as `30m`, `2h`, `1d12h` (units s, m, h, d, w), or ISO 8601: a date, or a
            date and time, of the local zone where it names none.
        now: where a span is counted from (aware).
        ahead: a span goes into the future; otherwise into the past.
        end_of_day: a date alone means its last moment; otherwise its first.

    Raises:
        ValueError: saying what is expected.
    """
    text = text.strip()
    try:
        if _SPAN.fullmatch(text):
            span = parse_span(text)
            return now + span if ahead else now - span
        try:
            day = date.fromisoformat(text)
        except ValueError:
            # Python 3.10 does not yet read the `Z` of UTC.
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        else:
            moment = datetime.combine(day, time.max if end_of_day else time.min)
        # A time without a zone is taken for one of the local zone.
        return moment.astimezone()
    except (ValueError, OverflowError, OSError):
        example = "2026-01-31 or '2026-01-31 09:30'"
        raise ValueError(
            f"{text!r} is not a time: expected a span such as 30m, 2h or 1d, or {example}"
        ) from None


def parse_span(text: str) -> timedelta:
    """Return the span that `text` stands for, such as `30m`, `2h` or `1d12h` (units s, m, h, d, w).

    Raises:
        ValueError: saying what is expected.
    """
    text = text.strip()
    if not _SPAN.fullmatch(text):
        raise ValueError(f"{text!r} is not a span of time: expected one such as 30m, 2h or 1d12h")
    try:
        return timedelta(
            seconds=sum(float(number) * _SECONDS[unit] for number, unit in _SPAN_PART.findall(text))
        )
    except OverflowError:
        raise ValueError(f"{text!r} is too long a span of time") from None


class Span(click.ParamType[float]):
    """An option's span of time, as `parse_span` reads it; in seconds."""

    name = "span"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; a wrong span is wrong usage."""
        if isinstance(value, float):
            return value
        try:
            return parse_span(str(value)).total_seconds()
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[datetime]):
    """An option's time, as `parse_time` reads it."""

    name = "time"

    def __init__(self, *, ahead: bool = False, end_of_day: bool = False) -> None:
        self._ahead = ahead
        self._end_of_day = end_of_day

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time; a wrong one is wrong usage."""
        if isinstance(value, datetime):
            return value
        try:
            return parse_time(
                str(value),
                now=datetime.now(timezone.utc),
                ahead=self._ahead,
                end_of_day=self._end_of_day,
            )
        except ValueError as error:
            self.fail(str(error), param, ctx)


def check_bounds(since: datetime | None, until: datetime | None) -> None:
    """Refuse a range of time that is empty.

    Raises:
        click.UsageError: `since` is after `until`.
    """
    if since and until and since > until:
        raise click.UsageError(
            f"--since ({local(since)}) is after --until ({local(until)}): no time is between them."
        )
