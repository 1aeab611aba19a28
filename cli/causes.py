"""Why jobs failed: how many with each error code, what it means, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..schemas.explanations import explain_any
from .printing import shown

#: Error codes that are shown to people; --json has them all.
_MAX_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Cause:
    """An error code and its number of jobs, explained; the names are those of the JSON."""

    error_code: str
    count: int
    meaning: str
    what_to_do: str


def causes_of(error_codes: Iterable[str]) -> list[Cause]:
    """Return the causes of jobs, given each job's error code; the most frequent first."""
    counts = sorted(Counter(error_codes).items(), key=lambda item: (-item[1], item[0]))
    return [Cause(code, count, *explain_any(code)) for code, count in counts]


def cause_lines(causes: Sequence[Cause]) -> Iterator[str]:
    """Yield the causes as text for people."""
    for cause in causes[:_MAX_SHOWN]:
        jobs = "1 job" if cause.count == 1 else f"{cause.count} jobs"
        yield f"{jobs} failed with {shown(cause.error_code)}: {cause.meaning}"
        yield f"  what to do: {cause.what_to_do}"
    if len(causes) > _MAX_SHOWN:
        yield f"and {len(causes) - _MAX_SHOWN} more error codes (--json has all)"
