"""The views of `watch`: JSON, lines, or a view that is updated in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from ...ledger import Pause
from ...schemas import JobRecord, State, iso_utc
from ...schemas.language import Language
from .job_view import meaning
from .pause_view import PAUSE_COLUMNS, pause_rows
from .printing import Cell, Column, is_terminal, print_json, print_notice, rich_table, shown
from .times import local

#: Maximum number of paused pages in the view that is updated in place.
_PAUSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at one moment, and the changes in the seconds since the previous snapshot.

    `failures` are the latest; `sent` and `failed` are 0 in the first snapshot, as `seconds` is.
    """

    at: datetime
    seconds: float
    sent: int
    failed: int
    states: dict[State, int]
    waiting: dict[str, int]
    pauses: list[Pause]
    failures: list[JobRecord]

    def rate(self, count: int) -> float:
        """Return `count` per second."""
        return count / self.seconds if self.seconds > 0 else 0.0


#: Shows a snapshot; or the latest one again, with the problem that prevents an update.
Show = Callable[[Snapshot, str], None]


@contextmanager
def json_view() -> Iterator[Show]:
    """Print one object each time."""

    def show(snapshot: Snapshot, problem: str) -> None:
        if problem:
            print_notice(problem)
            return
        print_json(
            {
                "at": iso_utc(snapshot.at),
                "sent_per_second": round(snapshot.rate(snapshot.sent), 3),
                "failed_per_second": round(snapshot.rate(snapshot.failed), 3),
                "states": {state.value: count for state, count in snapshot.states.items()},
                "waiting_by_page": snapshot.waiting,
                "paused": {pause.page_id: pause.reason for pause in snapshot.pauses},
            }
        )

    yield show


@contextmanager
def line_view(language: Language) -> Iterator[Show]:
    """Print one line each time, and one for each job that has failed."""
    printed: set[tuple[str, datetime | None]] = set()
    problem_before = ""

    def show(snapshot: Snapshot, problem: str) -> None:
        nonlocal printed, problem_before
        if problem and problem != problem_before:
            print_notice(problem)
        problem_before = problem
        if problem:
            return
        click.echo(f"{local(snapshot.at)}  {'  '.join(_numbers(snapshot))}")
        failures = {(record.job_id, record.finished_at): record for record in snapshot.failures}
        new = [record for key, record in failures.items() if key not in printed]
        for record in reversed(new):
            click.echo(f"    failed: {'  '.join(_failure(record, language))}")
        if snapshot.failed > len(new):
            click.echo(f"    and {snapshot.failed - len(new)} more")
        printed = set(failures)

    yield show


def live_view(title: str, language: Language) -> AbstractContextManager[Show] | None:
    """Return a view that is updated in place; None without a terminal or without rich."""
    if not is_terminal():
        return None
    try:
        import rich.live  # noqa: PLC0415 - optional
    except ImportError:
        return None
    return _rich_view(rich.live.Live(auto_refresh=False), title, language)


@contextmanager
def _rich_view(live: Any, title: str, language: Language) -> Iterator[Show]:
    def show(snapshot: Snapshot, problem: str) -> None:
        view = _view(snapshot, problem, title, language, live.console.width)
        live.update(view, refresh=True)

    with live:
        yield show


def _view(snapshot: Snapshot, problem: str, title: str, language: Language, width: int) -> Any:
    from rich.console import Group  # noqa: PLC0415 - optional
    from rich.text import Text  # noqa: PLC0415 - optional

    parts: list[Any] = [
        Text(f"{title}; {local(snapshot.at)}; Ctrl-C ends", style="bright_black"),
        Text("   ".join(_numbers(snapshot)), style="bold"),
    ]
    if problem:
        parts.append(Text(shown(problem), style="red"))
    for columns, rows in _tables(snapshot, language):
        if rows:
            cells = [[Cell(text) for text in row] for row in rows]
            parts += ["", rich_table(columns, cells, width)[0]]
    return Group(*parts)


def _tables(
    snapshot: Snapshot, language: Language
) -> Iterator[tuple[list[Column], list[list[str]]]]:
    yield (
        [Column("waiting on page"), Column("jobs", right=True)],
        [[shown(page), str(count)] for page, count in snapshot.waiting.items()],
    )
    yield PAUSE_COLUMNS, pause_rows(snapshot.pauses[:_PAUSES], snapshot.at, language)
    yield (
        [
            Column("failed at", spare=2),
            Column("error_code"),
            Column("page", spare=3),
            Column("job id", spare=1),
            # Cut the text, so that each failure has one line and the view fits on the screen.
            Column("why", fit="cut"),
        ],
        [_failure(record, language) for record in snapshot.failures],
    )


def _numbers(snapshot: Snapshot) -> list[str]:
    states = snapshot.states
    return [
        f"sent {snapshot.rate(snapshot.sent):.1f}/s",
        f"failed {snapshot.rate(snapshot.failed):.1f}/s",
        f"in flight {states[State.SENDING]}",
        f"queued {states[State.QUEUED]}",
        f"retrying {states[State.RETRYING]}",
        f"scheduled {states[State.SCHEDULED]}",
        f"paused pages {len(snapshot.pauses)}",
    ]


def _failure(record: JobRecord, language: Language) -> list[str]:
    return [
        local(record.finished_at),
        shown(record.error_code),
        shown(record.page_id),
        shown(record.job_id),
        meaning(record, language),
    ]
