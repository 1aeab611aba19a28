"""Numbers that a spreadsheet has rounded."""

from __future__ import annotations

import pytest
from harasocial_dispatch.cli.input.rounding import (
    is_rounded_id,
    is_rounded_key,
    judge_column,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "as_id", "as_key"),
    [
        ("2.56082E+15", True, True),
        ("2,56E+15", True, True),
        ("3E+15", True, True),
        ("3e15", True, False),
        ("12e34", True, False),
        ("2560816460648749", False, False),
        ("order-1E+15", False, False),
        ("", False, False),
    ],
)
def test_scientific_notation_is_rounded(text: str, as_id: bool, as_key: bool) -> None:
    """An id is always rounded in this form. A key is rounded only in a spreadsheet's form."""
    assert (is_rounded_id(text), is_rounded_key(text)) == (as_id, as_key)


@pytest.mark.parametrize(
    ("ids", "judgment"),
    [
        ([], "fine"),
        (["500725830264749"], "fine"),  # 15 digits are kept
        (["123456789012300"] * 9, "fine"),
        (["2560816460648740"], "fine"),  # as one id in ten
        (["2560816460648740"] * 9, "fine"),  # one id, however often
        ([f"25608164606487{i}00" for i in range(2)], "doubtful"),
        ([f"25608164606487{i}00" for i in range(3)], "rounded"),
        (["123456789012345000"], "fine"),
        (["123456789012345000000"], "rounded"),
        ([f"2560816460648{i}0" for i in range(10, 16)], "rounded"),
        ([f"2560816460648{i}0" for i in range(10, 16)] + ["2560816460648749"], "doubtful"),
        ([f"25608164606487{i}" for i in range(10, 99)], "fine"),
        (["2.56082E+15", "x", "'2560816460648740"], "fine"),
    ],
)
def test_a_column_is_classified_by_its_zeros(ids: list[str], judgment: str) -> None:
    """A column is certainly rounded only if all long ids end in many zeros."""
    assert judge_column(ids) == judgment


@given(st.lists(st.integers(10**15, 10**18), min_size=6, max_size=30))
def test_ids_that_a_spreadsheet_rounded_are_found(numbers: list[int]) -> None:
    """Any column of ids is found if 6 distinct ids remain after rounding."""
    rounded = {f"{n // 10 ** (len(str(n)) - 15)}".ljust(len(str(n)), "0") for n in numbers}
    if len(rounded) >= 6:
        assert judge_column(rounded) == "rounded"
