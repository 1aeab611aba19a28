"""Log lines that may come by the thousand: repeated ones are counted instead, and summarized.

Each line is of a *kind*: what it says, without the job that it is about. At most 10 lines a second
come out of one `LimitedLog`: up to 7 single ones, and up to 3 summaries of what was left out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

#: Lines of single events in one second, and those of them that may repeat a kind.
SINGLE_LINES_PER_SECOND = 7
REPEATED_LINES_PER_SECOND = 6
#: Lines that summarize, in one second.
SUMMARIES_PER_SECOND = 3

#: Between two rounds of summaries, in seconds.
_ROUND_SECONDS = 1.0

Kind = TypeVar("Kind", bound=Hashable)


class Line(NamedTuple):
    """What is logged: level, message, its arguments, and the facts beside it (see logs.py)."""

    level: int
    message: str
    args: tuple[object, ...]
    facts: dict[str, Any]


@dataclass(slots=True)
class RepeatLimit(Generic[Kind]):
    """Decides which events get a line of their own. Pure: the time is passed in.

    The last of the lines of a second are kept for kinds that had none in that second, so that a
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
    """Events without a line of their own: the most frequent kinds, and the others together."""

    by_kind: list[tuple[Kind, int]]
    other_kinds: int
    other_count: int


def summarize(left_out: Iterable[Kind], max_lines: int = SUMMARIES_PER_SECOND) -> Summary[Kind]:
    """Return what to say of events that were left out, in at most `max_lines` lines. Pure."""
    counts = Counter(left_out)
    if len(counts) <= max_lines:
        return Summary(counts.most_common(), 0, 0)
    shown = counts.most_common(max_lines - 1)
    return Summary(
        shown, len(counts) - len(shown), counts.total() - sum(count for _, count in shown)
    )


class LimitedLog(Generic[Kind]):
    """Logs events, and a second later a summary of those that were too many.

    Safe to share between threads and over a fork: each process has its own limit.

    Args:
        summary_line: returns the line for events of one kind that were left out, and their number.
        others_line: returns the line for the other kinds together: their number, and that of the
            events.
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
        # Taken from by one thread while another adds to it, without a lock.
        self._left_out: deque[Kind] = deque()
        self._thread: threading.Thread | None = None

    def log(self, kind: Kind, line: Line) -> None:
        """Log one event, or count it if there are too many."""
        if self._limit.admits(kind, time.monotonic()):
            self._write(line)
            return
        self._left_out.append(kind)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._summarize, name="log-summary", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Log the summary of what was left out until now."""
        left_out: list[Kind] = []
        while self._left_out:
            left_out.append(self._left_out.popleft())
        summary = summarize(left_out)
        for kind, count in summary.by_kind:
            self._write(self._summary_line(kind, count))
        if summary.other_count:
            self._write(self._others_line(summary.other_kinds, summary.other_count))

    def _summarize(self) -> None:
        """Summarize each second until nothing is left out any more."""
        while True:
            time.sleep(_ROUND_SECONDS)
            if not self._left_out:
                # Before the last look: whoever adds after it starts another thread.
                self._thread = None
                if not self._left_out:
                    return
            self.flush()

    def _write(self, line: Line) -> None:
        self._logger.log(line.level, line.message, *line.args, extra=line.facts)
