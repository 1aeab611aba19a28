"""Recorded results, and their observers: the log, the metrics, Flower."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...ledger import Result
from .limited_log import LimitedLog, Line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A result after the call to record it.

    `held` is False if another process had taken over the job. Then nothing was recorded.
    """

    result: Result
    held: bool


#: Called with a batch of recorded results. Must neither block nor raise.
Observer = Callable[[list[Recorded]], None]


def pair(results: Sequence[Result], held: Sequence[bool]) -> list[Recorded]:
    """Combine results with the ledger's replies."""
    return [Recorded(result=r, held=h) for r, h in zip(results, held, strict=True)]


def chain(*observers: Observer) -> Observer:
    """Return an observer that calls the given observers in order."""

    def observe(batch: list[Recorded]) -> None:
        for observer in observers:
            observer(batch)

    return observe


def log(batch: list[Recorded]) -> None:
    """Log unsuccessful jobs without personal ids: one line per job, or a summary of many jobs."""
    for recorded in batch:
        if recorded.held and recorded.result.outcome.error_code is None:
            continue
        _failures.log(_kind_of(recorded), _line_of(recorded))


def flush_log() -> None:
    """Log the summary of the lines that were omitted so far, before the process ends."""
    _failures.flush()


class _Kind(NamedTuple):
    page_id: str
    action: str
    state: str
    error_code: str | None


def _kind_of(recorded: Recorded) -> _Kind:
    result = recorded.result
    state = str(result.job_verdict.state)
    return _Kind(
        page_id=result.claim.page_id,
        action=f"job_{state}" if recorded.held else "claim_lost",
        state=state if recorded.held else "taken over by another worker",
        error_code=result.outcome.error_code,
    )


def _line_of(recorded: Recorded) -> Line:
    job_id = recorded.result.claim.job_id
    return _line("job %s of page %s: %s (%s)", _kind_of(recorded), "job_id", job_id)


def _summary_line(kind: _Kind, count: int) -> Line:
    return _line("%d more jobs of page %s: %s (%s)", kind, "count", count)


def _line(message: str, kind: _Kind, name: str, subject: str | int) -> Line:
    """Return a line about one job or several jobs. `name` is the extra field of the `subject`."""
    return Line(
        logging.WARNING,
        message,
        (subject, kind.page_id, kind.state, kind.error_code),
        {
            "action": kind.action,
            name: subject,
            "page_id": kind.page_id,
            "error_code": kind.error_code,
        },
    )


def _others_line(kinds: int, count: int) -> Line:
    return Line(
        logging.WARNING,
        "%d more jobs of other pages or with other error codes (%d kinds)",
        (count, kinds),
        {"action": "jobs_not_logged", "count": count},
    )


_failures = LimitedLog[_Kind](logger, summary_line=_summary_line, others_line=_others_line)
