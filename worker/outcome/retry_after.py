"""Parse the `Retry-After` header: seconds, which Haravan sends as a float, or an HTTP date."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str | None, *, date: str | None, now: datetime) -> float | None:
    """Return the number of seconds to wait, or None if `value` is missing or invalid.

    Args:
        value: the header's text, or None.
        date: the reply's `Date` header. A date in `value` is relative to it, because both come from
            the same clock.
        now: the current time (aware), used if the reply has no valid `Date`.
    """
    if value is None:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        until = _http_date(text)
        if until is None:
            return None
        seconds = (until - (_http_date(date or "") or now)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _http_date(text: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)
