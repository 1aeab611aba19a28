"""A rate-limited log: repeated lines are counted and summarized.

Lines that differ only in the job are of the same *kind*. A `LimitedLog` writes at most 10 lines per
second: up to 7 single lines, and up to 3 summaries of the omitted lines.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

#: Maximum lines of single events per second, and how many of them may repeat a kind.
SINGLE_LINES_PER_SECOND = 7
REPEATED_LINES_PER_SECOND = 6
#: Maximum summary lines per second.
SUMMARIES_PER_SECOND = 3

#: Seconds between two rounds of summaries.
_ROUND_SECONDS = 1.0

Kind = TypeVar("Kind", bound=Hashable)


class Line(NamedTuple):
    """A line to log: level, message, arguments, and extra fields (see logs.py)."""

    level: int
    message: str
    args: tuple[object, ...]
    facts: dict[str, Any]


@dataclass(slots=True)
class RepeatLimit(Generic[Kind]):
    """Decides which events get their own line. Pure: the time is passed in.

    Some lines of each second are reserved for kinds that had no line in that second, so that a
    flood of one kind does not hide another.
    """

    _recent: deque[tuple[float, Kind]] = field(default_factory=deque)

    def admits(self, kind: Kind, now: float) -> bool:
        """Return whether an event at `now` (seconds, never decreasing) gets its own line."""
        recent = self._recent
        while recent and recent[0][0] <= now - 1.0:
            recent.popleft()
        is_repeated = any(kind == other for _, other in recent)
        limit = REPEATED_LINES_PER_SECOND if is_repeated else SINGLE_LINES_PER_SECOND
        if len(recent) >= limit:
            return False
        recent.append((now, kind))
        return True


@dataclass(frozen=True, slots=True)
class Summary(Generic[Kind]):
    """The omitted events: the counts of the most frequent kinds, and the total of the others."""

    by_kind: list[tuple[Kind, int]]
    other_kinds: int
    other_count: int


def summarize(left_out: Iterable[Kind], max_lines: int = SUMMARIES_PER_SECOND) -> Summary[Kind]:
    """Summarize omitted events in at most `max_lines` lines. Pure."""
    counts = Counter(left_out)
    if len(counts) <= max_lines:
        return Summary(counts.most_common(), 0, 0)
    shown = counts.most_common(max_lines - 1)
    return Summary(
        shown, len(counts) - len(shown), counts.total() - sum(count for _, count in shown)
    )


class LimitedLog(Generic[Kind]):
    """Logs events, and after a second a summary of the omitted events.

    Thread-safe, and safe over fork. Each process has its own limit.

    Args:
        summary_line: returns the line for a kind and the number of its omitted events.
        others_line: returns the line for the number of other kinds and of their omitted events.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        summary_line: Callable[[Kind, int], Line],
        others_line: Callable[[int, int], Line],
    ) -> None:
        self._logger = logger
        self._summary_line = summary_line
        self._others_line = others_line
        self._limit = RepeatLimit[Kind]()
        # One thread removes items while another adds items, without a lock.
        self._left_out: deque[Kind] = deque()
        self._thread: threading.Thread | None = None

    def log(self, kind: Kind, line: Line) -> None:
        """Log an event, or count it if the limit is reached."""
        if self._limit.admits(kind, time.monotonic()):
            self._write(line)
            return
        self._left_out.append(kind)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._summarize, name="log-summary", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Log the summary of the events that were omitted so far."""
        left_out: list[Kind] = []
        while self._left_out:
            left_out.append(self._left_out.popleft())
        summary = summarize(left_out)
        for kind, count in summary.by_kind:
            self._write(self._summary_line(kind, count))
        if summary.other_count:
            self._write(self._others_line(summary.other_kinds, summary.other_count))

    def _summarize(self) -> None:
        """Log a summary every second until no events are omitted."""
        while True:
            time.sleep(_ROUND_SECONDS)
            if not self._left_out:
                # Clear this before the last check. A thread that adds an event after the check
                # starts a new thread.
                self._thread = None
                if not self._left_out:
                    return
            self.flush()

    def _write(self, line: Line) -> None:
        self._logger.log(line.level, line.message, *line.args, extra=line.facts)
