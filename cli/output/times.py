"""Format times as text in the local time zone. JSON has times in UTC."""

from __future__ import annotations

import math
from datetime import datetime


def local(moment: datetime | None) -> str:
    """Return `moment` in the local zone, to the second; an empty text for None."""
    if moment is None:
        return ""
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return "?"  # Another client wrote a time outside the calendar.


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units: `45 s`, `26 min`, `1 h 7 min`, `2 d 3 h`."""
    whole = math.ceil(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    large, small, names = (minutes // 60, minutes % 60, ("h", "min"))
    if large >= 48:
        hours = round(minutes / 60)
        large, small, names = (hours // 24, hours % 24, ("d", "h"))
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")
