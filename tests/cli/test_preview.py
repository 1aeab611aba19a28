"""Previews: jobs are counted before any is stored."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone

import pytest
from harasocial_dispatch.producer.forecast import Load
from harasocial_dispatch.producer.preview import Preview, SeenKeys
from harasocial_dispatch.schemas import NewJob, from_ms, parse_row
from hypothesis import given
from hypothesis import strategies as st
from support.harness import body
from support.memory import peak_bytes

#: Today: a job may be scheduled for a year ahead.
NOW = 1000 * int(datetime.now(timezone.utc).timestamp())
LIFE = 3600


def time(milliseconds: int) -> str:
    return from_ms(milliseconds).isoformat()


def new_job(
    key: str | None = None, page_id: str = "1", metadata: str | None = None, **options: str
) -> NewJob:
    fields = body(page_id=page_id, metadata=metadata)
    return parse_row(fields | options | ({"idempotency_key": key} if key else {}))


def test_rows_with_the_same_key_are_duplicates_or_in_conflict() -> None:
    """The result equals the ledger's result. Rows without a key are not duplicates."""
    rows = [new_job(), new_job(), new_job("a"), new_job("a"), new_job("a", metadata="m"),
            new_job("b", metadata="m"), new_job("a")]  # fmt: skip
    with closing(Preview(NOW)) as preview:
        found = [preview.add(row) for row in rows]
        assert found == ["new", "new", "new", "duplicate", "conflict", "new", "duplicate"]
        assert (preview.job_count, preview.duplicate_count) == (4, 2)


def test_jobs_are_counted_by_page_and_time() -> None:
    """A job without a deadline gets the lifetime of the settings, from its `send_at`."""
    in_half_an_hour = NOW + 1_800_000
    with closing(Preview(NOW)) as preview:
        for page_id in ("1", "1", "2"):
            preview.add(new_job(page_id=page_id))
        for milliseconds in (0, 999):
            preview.add(new_job(page_id="2", expires_at=time(in_half_an_hour + milliseconds)))
        preview.add(new_job(page_id="2", send_at=time(in_half_an_hour)))
        loads = preview.loads_by_page(LIFE)
    assert loads == {
        "1": [Load(2, 0, NOW + LIFE * 1000)],
        "2": [
            Load(1, 0, NOW + LIFE * 1000),
            Load(2, 0, in_half_an_hour),
            Load(1, in_half_an_hour, in_half_an_hour + LIFE * 1000),
        ],
    }


def test_the_number_of_different_times_is_bounded() -> None:
    """A deadline is never rounded up, and rounded down only slightly."""
    with closing(Preview(NOW)) as preview:
        for minutes in range(1, 300 * 24 * 60, 7):
            preview.add(new_job(expires_at=time(NOW + minutes * 60_000 + 321)))
        (loads,) = preview.loads_by_page(LIFE).values()
    assert 1_000 < len(loads) < 12_000
    with closing(Preview(NOW)) as preview:
        for ahead_ms in (
            -5_000,
            1,
            59_999,
            3_599_999,
            86_399_999,
            8 * 86_400_000 + 1,
            300 * 86_400_000,
        ):
            preview.add(new_job(page_id=str(abs(ahead_ms)), expires_at=time(NOW + ahead_ms)))
        for page_id, (load,) in preview.loads_by_page(LIFE).items():
            early_ms = NOW + (-5_000 if page_id == "5000" else int(page_id)) - load.expires_at_ms
            assert 0 <= early_ms <= max(1_000, int(page_id) * 0.01)


def test_a_file_of_keys_can_be_closed_by_another_thread() -> None:
    """The garbage collector does this after an error."""
    seen = SeenKeys()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(seen.close).result()


@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 2)), max_size=50))
def test_occurrences_are_counted(occurrences: list[tuple[str, int]]) -> None:
    """Each occurrence is numbered and compared with the body of the first one."""
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    with closing(SeenKeys()) as seen:
        for key, value in occurrences:
            counts[key] += 1
            assert seen.add(key, value) == (counts[key], first.setdefault(key, value) == value)


@pytest.mark.parametrize("count", [200_000])
def test_many_keys_are_not_held_in_memory(count: int) -> None:
    """Keys are stored in a temporary SQLite file with a bounded cache."""
    peak = peak_bytes(
        f"seen = SeenKeys()\nfor number in range({count}): seen.add(str(number))",
        imports="from test_preview import SeenKeys",
        folder="cli",
    )
    assert peak < 1_000_000
