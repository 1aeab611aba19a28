"""`X-Haravan-Api-Call-Limit`: valid buckets are parsed, and all other values are ignored."""

from __future__ import annotations

import pytest
from harasocial_dispatch.schemas import CallLimit
from harasocial_dispatch.worker.outcome.call_limit import parse_call_limit
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("32/80", CallLimit(32, 80)),
        ("0/80", CallLimit(0, 80)),
        ("80/80", CallLimit(80, 80)),
        (" 1 / 2 ", CallLimit(1, 2)),
        ("007/080", CallLimit(7, 80)),
        (None, None),
        ("", None),
        ("32", None),
        ("32/", None),
        ("/80", None),
        ("32/80/1", None),
        ("-1/80", None),
        ("1.5/80", None),
        ("+1/80", None),
        ("1e1/80", None),
        ("81/80", None),
        ("0/0", None),
        ("0/1000001", None),
        ("1/9999999999999999999999", None),
        ("٣/٨", None),
        ("32/80, 33/80", None),
    ],
)
def test_only_whole_numbers_of_used_and_limit_are_valid(
    value: str | None, expected: CallLimit | None
) -> None:
    """An invalid bucket must not stop a page."""
    assert parse_call_limit(value) == expected


@given(st.text(st.characters(max_codepoint=255)) | st.from_regex(r"[0-9]{1,9} ?/ ?[0-9]{1,9}"))
def test_any_header_is_a_valid_bucket_or_ignored(value: str) -> None:
    """The header comes from the network and may be any text."""
    found = parse_call_limit(value)
    assert found is None or (0 <= found.used <= found.limit and 1 <= found.limit <= 1_000_000)


@given(st.integers(0, 1_000_000), st.integers(1, 1_000_000))
def test_every_valid_bucket_is_parsed(used: int, limit: int) -> None:
    """The numbers are not changed."""
    expected = CallLimit(used, limit) if used <= limit else None
    assert parse_call_limit(f"{used}/{limit}") == expected
