"""Formatting of values on Flower's pages."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from harasocial_dispatch.flower.presentation import error_message, stored_time_html
from harasocial_dispatch.schemas import Attempt


@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("10/2018278", "(#10) sent outside of the window", "sent outside of the window"),
        ("10/2018278", "(#10/2018278) sent outside", "sent outside"),
        ("551", "(#551)not available", "not available"),
        ("http_400", "http_400: unreadable", "unreadable"),
        # A different code is part of the message.
        ("10", "(#100) invalid parameter", "(#100) invalid parameter"),
        ("http_400", "(#100) invalid parameter", "(#100) invalid parameter"),
        ("551", "see (#551)", "see (#551)"),
        ("551", None, ""),
        (None, "(#551) x", "(#551) x"),
    ],
)
def test_an_error_message_does_not_repeat_its_code(
    code: str | None, message: str | None, shown: str
) -> None:
    """Every row already shows the code before the message."""
    attempt = Attempt(
        at=datetime(2026, 1, 31, tzinfo=timezone.utc),
        duration_ms=1,
        http_status=200,
        error_code=code,
        error_message=message,
    )
    assert error_message(attempt) == shown


@pytest.mark.parametrize("milliseconds", [None, 10**18, -(10**18)])
def test_a_stored_time_outside_the_calendar_is_left_out(milliseconds: int | None) -> None:
    """Another client may have written the invalid time."""
    assert stored_time_html(milliseconds) == ""
