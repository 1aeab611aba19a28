"""The limited log: a few single lines, and a summary with the number of omitted lines."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest
from harasocial_dispatch.schemas import (
    State,
)
from harasocial_dispatch.worker.observe import recorded
from harasocial_dispatch.worker.observe.limited_log import (
    REPEATED_LINES_PER_SECOND,
    SINGLE_LINES_PER_SECOND,
    SUMMARIES_PER_SECOND,
    RepeatLimit,
    summarize,
)
from harasocial_dispatch.worker.observe.recorded import Recorded
from hypothesis import given
from hypothesis import strategies as st
from support.harness import eventually
from support.results import make_claim, make_result

TIMES = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 20)), max_size=200)


def test_at_most_ten_lines_per_second_are_written() -> None:
    """The limit includes single lines and summaries."""
    assert SINGLE_LINES_PER_SECOND + SUMMARIES_PER_SECOND <= 10


@given(events=TIMES)
def test_no_second_has_more_lines_than_the_limit(events: list[tuple[float, int]]) -> None:
    """The limit applies to every interval of one second, and to any events."""
    limit = RepeatLimit[int]()
    lines = [(now, kind) for now, kind in sorted(events) if limit.admits(kind, now)]
    for start, _ in lines:
        second = [kind for now, kind in lines if start <= now < start + 1.0]
        assert len(second) <= SINGLE_LINES_PER_SECOND


@given(events=st.lists(st.floats(0, 100), max_size=REPEATED_LINES_PER_SECOND))
def test_few_failures_have_a_line_each(events: list[float]) -> None:
    """Below the limit nothing is summarized, even if lines are identical."""
    limit = RepeatLimit[str]()
    assert all(limit.admits("same", now) for now in sorted(events))


def test_a_flood_of_one_kind_does_not_hide_another() -> None:
    """A kind without a line in this second gets one of the reserved lines."""
    limit = RepeatLimit[str]()
    admitted = [limit.admits("flood", number / 1000) for number in range(500)]
    assert sum(admitted) == REPEATED_LINES_PER_SECOND
    assert limit.admits("other", 0.5)
    assert not limit.admits("other", 0.5)
    # A second after the first lines, more lines are allowed.
    assert limit.admits("flood", 1.01)


@given(kinds=st.lists(st.integers(0, 20)), max_lines=st.integers(1, 5))
def test_a_summary_counts_every_event_in_few_lines(kinds: list[int], max_lines: int) -> None:
    """The most frequent kinds have their own lines. The others share a line."""
    summary = summarize(kinds, max_lines)
    counts = Counter(kinds)
    assert all(counts[kind] == count for kind, count in summary.by_kind)
    assert sum(count for _, count in summary.by_kind) + summary.other_count == len(kinds)
    assert len(summary.by_kind) + summary.other_kinds == len(counts)
    assert len(summary.by_kind) + bool(summary.other_count) <= max_lines


def failed(number: int, page_id: str = "500", error_code: str = "551") -> Recorded:
    claim = make_claim(job_id=f"job-{number}", page_id=page_id)
    return Recorded(result=make_result(claim, State.FAILED, error_code), held=True)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """Yield the log records. No line of an earlier test is in the current second."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", records.append)
    recorded.flush_log()
    monkeypatch.setattr(recorded._failures, "_limit", RepeatLimit())
    recorded.logger.addHandler(handler)
    yield records
    recorded.logger.removeHandler(handler)


def test_a_summary_counts_the_omitted_jobs_of_a_flood(
    lines: list[logging.LogRecord],
) -> None:
    """The summary is written a second after the start of the flood, without another batch."""
    recorded.log([failed(number) for number in range(1000)])
    recorded.log([failed(1000, page_id="600")])
    singles = [line.getMessage() for line in lines]
    assert singles == [
        *(f"job job-{n} of page 500: failed (551)" for n in range(REPEATED_LINES_PER_SECOND)),
        "job job-1000 of page 600: failed (551)",
    ]
    eventually(lambda: len(lines) > len(singles), what="the summary")
    summary = lines[-1]
    left_out = 1000 - REPEATED_LINES_PER_SECOND
    assert summary.getMessage() == f"{left_out} more jobs of page 500: failed (551)"
    facts = {name: getattr(summary, name) for name in ("action", "count", "page_id", "error_code")}
    assert facts == {
        "action": "job_failed", "count": left_out, "page_id": "500", "error_code": "551",
    }  # fmt: skip


def test_an_ending_process_writes_the_summary_first(lines: list[logging.LogRecord]) -> None:
    """The less frequent kinds share a line."""
    recorded.log([failed(number, page_id=str(number % 50)) for number in range(500)])
    recorded.flush_log()
    assert len(lines) == SINGLE_LINES_PER_SECOND + SUMMARIES_PER_SECOND
    assert sum(getattr(line, "count", 1) for line in lines) == 500
    recorded.flush_log()
    assert len(lines) == SINGLE_LINES_PER_SECOND + SUMMARIES_PER_SECOND
