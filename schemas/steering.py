"""What an operator may set for a page, checked before anything is stored."""

from __future__ import annotations

import math

from .errors import InvalidRequest
from .job import page_id_fault

#: Messages a second; a higher rate is a mistake in units.
MAX_RATE = 100_000
#: Messages at once.
MAX_BURST = 100_000
#: A pause may last this long (seconds) at most; without a time it lasts until it is resumed.
MAX_PAUSE_SECONDS = 366 * 86400.0
#: How long after its claim was asked for the request of a page that has a rate may begin. The rate
#: is counted when jobs are claimed, and must hold where requests arrive: if connections are slow to
#: open, requests claimed over a longer time would arrive together. So a claim takes fewer jobs at
#: once than the burst, by as many as the rate allows within this time, and a request that would
#: begin later is not sent.
START_WITHIN_SECONDS = 0.2
#: Facebook disables a page's inbox if the page sends more than this many messages a second.
INBOX_LIMIT_PER_SECOND = 40
#: The shortest rate that is not 0: one message in a day.
_MIN_RATE = 1 / 86400
_MAX_REASON_CHARACTERS = 200
_MAX_BY_CHARACTERS = 100


def check_page_id(page_id: object) -> str:
    """Return a page id.

    Raises:
        InvalidRequest: it is not a string of digits.
    """
    if (fault := page_id_fault(page_id)) is not None:
        raise InvalidRequest(f"page_id: {fault}")
    return str(page_id)


def check_reason(reason: object) -> str:
    """Return an operator's reason, which may be empty."""
    return _text("reason", reason, _MAX_REASON_CHARACTERS)


def check_by(by: object) -> str:
    """Return who asks for something."""
    return _text("by", by, _MAX_BY_CHARACTERS)


def _text(name: str, text: object, max_characters: int) -> str:
    if not isinstance(text, str) or not (text.isprintable() and len(text) <= max_characters):
        raise InvalidRequest(
            f"{name}: Must be a string of at most {max_characters} printable characters."
        )
    return text


def check_pause_seconds(seconds: object) -> float | None:
    """Return how long to pause, in seconds; None for until it is resumed."""
    if seconds is None:
        return None
    number = _number("for_seconds", seconds)
    if not 0.001 <= number <= MAX_PAUSE_SECONDS:
        raise InvalidRequest(
            f"for_seconds: Must be more than 0 and at most {MAX_PAUSE_SECONDS:.0f} (366 days); "
            "leave it out to pause until the page is resumed."
        )
    return number


def check_rate(rate: object, burst: object) -> tuple[float, int]:
    """Return messages a second (0 for no limit), and how many may go at once."""
    number = _number("rate", rate)
    if number != 0 and not _MIN_RATE <= number <= MAX_RATE:
        raise InvalidRequest(
            f"rate: Must be messages a second, from 1 in a day to {MAX_RATE}; 0 for no limit."
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


def most_in_a_second(rate: float, burst: int) -> float:
    """Return how many messages of a page may reach the API within one second.

    `rate` (messages a second) is not 0; `burst` is how many may go at once.
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
    most = most_in_a_second(rate, burst)
    # The last digits of a rate such as 25.1 must not decide.
    if most <= INBOX_LIMIT_PER_SECOND + 1e-9:
        return None
    return f"is {rate:g} with a burst of {burst}, up to {most:.4g} messages in a second: {danger}"
