"""Counting jobs before any is stored."""

from __future__ import annotations

import tracemalloc
from contextlib import closing

import pytest
from harasocial_dispatch.producer.forecast import Load
from harasocial_dispatch.producer.preview import Preview, SeenKeys
from harasocial_dispatch.schemas import parse_row
from hypothesis import given
from hypothesis import strategies as st
from support.harness import body

NOW = 1_800_000_000_000
LIFE = 3600


def new_job(key=None, page_id="1", metadata=None, **options):
    fields = body(page_id=page_id, metadata=metadata)
    return parse_row(fields | options | ({"idempotency_key": key} if key else {}))


def test_rows_with_the_same_key_are_duplicates_or_in_conflict():
    """As the ledger would find them; rows without a key are none."""
    rows = [new_job(), new_job(), new_job("a"), new_job("a"), new_job("a", metadata="m"),
            new_job("b", metadata="m"), new_job("a")]  # fmt: skip
    with closing(Preview()) as preview:
        found = [preview.add(row) for row in rows]
        assert found == ["new", "new", "new", "duplicate", "conflict", "new", "duplicate"]
        assert (preview.job_count, preview.duplicate_count) == (4, 2)


def test_jobs_are_counted_by_page_and_time():
    """By the minute; a job without a deadline lives as long as the settings say."""
    at = "2027-01-31T09:30:41Z"
    minute = 1_801_387_800_000
    with closing(Preview()) as preview:
        for page_id in ("1", "1", "2"):
            preview.add(new_job(page_id=page_id))
        for second in (0, 59):
            preview.add(new_job(page_id="2", expires_at=f"2027-01-31T09:30:{second:02}Z"))
        loads = preview.loads_by_page(now_ms=NOW, expires_seconds=LIFE)
    assert at
    assert loads == {
        "1": [Load(2, 0, NOW + LIFE * 1000)],
        "2": [Load(1, 0, NOW + LIFE * 1000), Load(2, 0, minute)],
    }


def test_a_job_for_later_lives_from_then_on():
    """Its deadline, if it has none, is counted from its `send_at`."""
    with closing(Preview()) as preview:
        preview.add(new_job(send_at="2027-01-31T09:30:00Z"))
        ((load,),) = preview.loads_by_page(now_ms=NOW, expires_seconds=LIFE).values()
    assert load == Load(1, 1_801_387_800_000, 1_801_387_800_000 + LIFE * 1000)


@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 2)), max_size=50))
def test_occurrences_are_counted(occurrences):
    """Each one has its number, and is compared with the first one's body."""
    counts, first = {}, {}
    with closing(SeenKeys()) as seen:
        for key, value in occurrences:
            counts[key] = counts.get(key, 0) + 1
            assert seen.add(key, value) == (counts[key], first.setdefault(key, value) == value)


@pytest.mark.parametrize("count", [200_000])
def test_many_keys_are_not_held_in_memory(count):
    """They are in a temporary file, of which a part is cached by SQLite."""
    tracemalloc.start()
    with closing(SeenKeys()) as seen:
        for number in range(count):
            seen.add(str(number))
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
