"""Validate what an operator sets for a page: pauses, rates and reasons."""

from __future__ import annotations

import math

from .errors import InvalidRequest
from .job import id_fault

#: Maximum messages per second. A higher rate is most likely a mistake in units.
MAX_RATE = 100_000
#: Maximum messages at once.
MAX_BURST = 100_000
#: Maximum duration of a pause in seconds. A pause without a duration lasts until the page is
#: resumed.
MAX_PAUSE_SECONDS = 366 * 86400.0
#: Maximum seconds between the start of a claim and the start of its request, for pages with a rate.
#: The rate is counted when jobs are claimed, but it must hold where requests arrive. If connections
#: open slowly, requests that were claimed at different times would arrive together. So a request
#: that would begin later is not sent, and a claim takes fewer jobs at once than the burst: fewer by
#: the number that the rate allows within this time.
START_WITHIN_SECONDS = 0.2
#: Facebook disables the inbox of a page that sends more messages per second than this.
INBOX_LIMIT_PER_SECOND = 40
#: The lowest rate that is not 0: one message per day.
_MIN_RATE = 1 / 86400
_MAX_REASON_CHARACTERS = 200
_MAX_BY_CHARACTERS = 100


def check_page_id(page_id: object) -> str:
    """Validate a page id and return it.

    Raises:
        InvalidRequest: it is not a string of digits.
    """
    if (fault := id_fault(page_id)) is not None:
        raise InvalidRequest(f"page_id: {fault}")
    return str(page_id)


def check_reason(reason: object) -> str:
    """Validate an operator's reason, which may be empty, and return it."""
    return _text("reason", reason, _MAX_REASON_CHARACTERS)


def check_by(by: object) -> str:
    """Validate the name of the operator and return it."""
    return _text("by", by, _MAX_BY_CHARACTERS)


def _text(name: str, text: object, max_characters: int) -> str:
    if not isinstance(text, str) or not (text.isprintable() and len(text) <= max_characters):
        raise InvalidRequest(
            f"{name}: Must be a string of at most {max_characters} printable characters."
        )
    return text


def check_pause_seconds(seconds: object) -> float | None:
    """Validate the duration of a pause in seconds, or None for no end, and return it."""
    if seconds is None:
        return None
    number = _number("for_seconds", seconds)
    if not 0.001 <= number <= MAX_PAUSE_SECONDS:
        raise InvalidRequest(
            f"for_seconds: Must be more than 0 and at most {MAX_PAUSE_SECONDS:.0f} (366 days); "
            "omit it to pause until the page is resumed."
        )
    return number


def check_rate(rate: object, burst: object) -> tuple[float, int]:
    """Validate and return a rate (messages per second, 0 for no limit) and a burst."""
    number = _number("rate", rate)
    if number != 0 and not _MIN_RATE <= number <= MAX_RATE:
        raise InvalidRequest(
            f"rate: Must be messages per second, from 1 per day to {MAX_RATE}; 0 for no limit."
        )
    if isinstance(burst, bool) or not isinstance(burst, int) or not 1 <= burst <= MAX_BURST:
        raise InvalidRequest(f"burst: Must be a whole number of messages from 1 to {MAX_BURST}.")
    return number, burst


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError
        number = float(value)
    except (TypeError, OverflowError):
        raise InvalidRequest(f"{name}: Must be a number.") from None
    if not math.isfinite(number):
        raise InvalidRequest(f"{name}: Must be a number.")
    return number


def peak_per_second(rate: float, burst: int) -> float:
    """Return the maximum number of a page's messages that reach the API within one second.

    `rate` (messages per second) must not be 0. `burst` is the number of messages at once.
    """
    return rate + max(burst, 1 + rate * START_WITHIN_SECONDS)


def rate_problem(rate: float, burst: int) -> str | None:
    """Return why a page's rate is dangerous, or None if it is safe."""
    danger = (
        f"Facebook disables the inbox of a page that sends more than {INBOX_LIMIT_PER_SECOND} "
        "messages in a second"
    )
    if rate == 0:
        return f"is 0, no limit: {danger}"
    most = peak_per_second(rate, burst)
    # Allow for the rounding error of a rate such as 25.1.
    if most <= INBOX_LIMIT_PER_SECOND + 1e-9:
        return None
    return f"is {rate:g} with a burst of {burst}, up to {most:.4g} messages in a second: {danger}"
