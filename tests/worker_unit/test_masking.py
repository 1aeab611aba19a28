"""Masking of personal ids."""

from __future__ import annotations

import pytest
from harasocial_dispatch.schemas.masking import masked


@pytest.mark.parametrize(
    ("personal_id", "expected"),
    [
        ("2560816460648749", "************8749"),
        ("12345", "*2345"),
        ("1234", "****"),
        ("", ""),
        (None, ""),
        (12345, "*2345"),
        ("\x1b[2J1234", "****1234"),
    ],
)
def test_the_last_four_digits_of_a_personal_id_are_shown(
    personal_id: object, expected: str
) -> None:
    """A short id is completely hidden."""
    assert masked(personal_id) == expected
