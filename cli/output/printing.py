"""Output: tables for people, JSON for programs, and no control characters in either."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import click

from ...schemas import State, sanitize

#: The command that people type.
NAME = "harasocial-dispatch"

#: Characters of one value that are shown to people: metadata and error messages fit.
MAX_SHOWN_CHARACTERS = 500
#: Characters of a whole message on standard error.
_MAX_COMPLAINT_CHARACTERS = 4000
#: Blanks after each column of a table.
GAP = 2
#: Characters that a column keeps, however narrow the terminal.
_NARROWEST = 8
#: Characters of a column that is cut or wrapped below which others are left out for it.
_READABLE = 24

STATE_STYLES = {
    State.SCHEDULED: "blue",
    State.QUEUED: "blue",
    State.SENDING: "cyan",
    State.RETRYING: "yellow",
    State.SENT: "green",
    State.FAILED: "red",
    State.CANCELLED: "bright_black",
}


class Column(NamedTuple):
    """A table's column. `fit`: what a narrow terminal does to its texts, if they are too long.

    `spare`: where that is not enough, columns are left out, the highest number first; 0 is never.
    """

    title: str
    fit: Literal["whole", "cut", "wrap"] = "whole"
    right: bool = False
    spare: int = 0


class Cell(NamedTuple):
    """A text of a table with its color."""

    text: str
    style: str = ""


def is_terminal() -> bool:
    """Return whether a person reads standard output."""
    return sys.stdout.isatty()


def shown(value: object) -> str:
    """Return `value` as one harmless line; an empty text for None."""
    return "" if value is None else sanitize(str(value), MAX_SHOWN_CHARACTERS)


def jobs(count: int) -> str:
    """Return a number of jobs in words."""
    return "1 job" if count == 1 else f"{count} jobs"


def state_cell(state: State) -> Cell:
    """Return the state in its color."""
    return Cell(state.value, STATE_STYLES[state])


def json_text(value: object) -> str:
    """Return `value` as JSON on one line, in ASCII that prints: no control character gets out."""
    return json.dumps(value)


def print_json(value: object) -> None:
    """Print `value` as JSON on one line."""
    click.echo(json_text(value))


class Problem(NamedTuple):
    """An error: its type, its texts, the exit status, further fields for programs, and a hint."""

    kind: str
    texts: Sequence[str]
    exit_status: int
    details: Mapping[str, object] = MappingProxyType({})
    hint: str = ""


#: In the meta of click's context: whether standard error is for programs (--json).
JSON_ERRORS = f"{__name__}.json_errors"


def print_notice(message: str) -> None:
    """Print one line on standard error; with --json, as `{"notice": message}`."""
    message = sanitize(message, _MAX_COMPLAINT_CHARACTERS)
    click.echo(json_text({"notice": message}) if _is_json_wanted() else message, err=True)


def print_error(problem: Problem, *, as_json: bool) -> None:
    """Print an error on standard error, for people or as one JSON object."""
    if as_json:
        error = {
            "type": problem.kind,
            "message": " ".join(problem.texts) or problem.hint,
            "exit_status": problem.exit_status,
            **problem.details,
        }
        click.echo(json_text({"error": error}), err=True)
        return
    for text in problem.texts:
        print_notice(f"Error: {text}")
    if problem.hint:
        print_notice(problem.hint)


def _is_json_wanted() -> bool:
    ctx = click.get_current_context(silent=True)
    return ctx is not None and bool(ctx.meta.get(JSON_ERRORS))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Print a table: colored and fitted to a terminal, in plain aligned text elsewhere."""
    cells = [
        [
            Cell(shown(cell.text), cell.style) if isinstance(cell, Cell) else Cell(shown(cell))
            for cell in row
        ]
        for row in rows
    ]
    if not (is_terminal() and _print_rich_table(columns, cells)):
        _print_plain_table(columns, cells)


def _print_plain_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    lines = [[column.title for column in columns], *([cell.text for cell in row] for row in rows)]
    widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _print_rich_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> bool:
    """Print the table by rich; returns False where that is not installed (the extra `cli`)."""
    try:
        from rich.console import Console  # noqa: PLC0415 - optional

        console = Console()
        if console.is_dumb_terminal:
            # Of such a one rich does not know the width, and would cut ids.
            return False
        grid, width = rich_table(columns, rows, console.width)
    except ImportError:
        return False
    # Rather than cut what must stay whole, such as an id to copy, the lines run over the edge.
    Console(width=max(console.width, width)).print(grid)
    return True


def rich_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], terminal_width: int
) -> tuple[Any, int]:
    """Return the table as rich prints it, and the width that it needs."""
    from rich.cells import cell_len  # noqa: PLC0415 - optional
    from rich.table import Table  # noqa: PLC0415 - optional
    from rich.text import Text  # noqa: PLC0415 - optional

    widest = [
        max(cell_len(text) for text in (column.title, *(row[i].text for row in rows)))
        for i, column in enumerate(columns)
    ]
    kept = kept_columns(columns, widest, terminal_width)
    columns = [columns[i] for i in kept]
    rows = [[row[i] for i in kept] for row in rows]
    widths = fitted_widths(columns, [widest[i] for i in kept], terminal_width)
    grid = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        grid.add_column(
            column.title,
            width=width,
            justify="right" if column.right else "left",
            no_wrap=column.fit != "wrap",
            overflow="fold" if column.fit == "wrap" else "ellipsis",
        )
    for row in rows:
        # A Text is printed as it is: rich does not look for markup in it.
        grid.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    return grid, sum(widths) + GAP * (len(widths) - 1)


def kept_columns(
    columns: Sequence[Column], widest: Sequence[int], terminal_width: int
) -> list[int]:
    """Return the indices of the columns that a terminal this wide has room for."""
    kept = list(range(len(columns)))
    for i in sorted(kept, key=lambda i: -columns[i].spare):
        needed = (
            widest[k] if columns[k].fit == "whole" else min(widest[k], _READABLE) for k in kept
        )
        if not columns[i].spare or sum(needed) + GAP * (len(kept) - 1) <= terminal_width:
            break
        kept.remove(i)
    return kept


def fitted_widths(
    columns: Sequence[Column], widest: Sequence[int], terminal_width: int
) -> list[int]:
    """Return each column's width: `widest` if whole, else a fair share of what those leave."""
    widths = list(widest)
    flexible = sorted(
        (i for i, column in enumerate(columns) if column.fit != "whole"), key=lambda i: widest[i]
    )
    whole = sum(widest) - sum(widest[i] for i in flexible)
    left = terminal_width - GAP * (len(columns) - 1) - whole
    # The narrowest first: what it does not need of its share is left to the others.
    for rank, i in enumerate(flexible):
        share = max(left // (len(flexible) - rank), _NARROWEST, len(columns[i].title))
        widths[i] = min(widest[i], share)
        left -= widths[i]
    return widths


@contextmanager
def progress_bar(
    total: int | None, unit: str, label: str = ""
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error while the block lasts, if a person reads that.

    It has the label, the number of units done, their rate since the beginning, and the time left.
    Yields a function to call with how much of `total` is done, and how many units that is.
    """
    try:
        from rich import progress  # noqa: PLC0415 - optional
        from rich.console import Console  # noqa: PLC0415 - optional
    except ImportError:
        yield _show_nothing
        return
    if not sys.stderr.isatty():
        yield _show_nothing
        return
    with progress.Progress(
        progress.TextColumn(label),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[units]:,} " + unit),
        progress.TextColumn("{task.fields[rate]:,.0f}/s"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total, units=0, rate=0.0)
        begun_at = time.monotonic()

        def advance(done: int, units: int) -> None:
            rate = units / max(time.monotonic() - begun_at, 0.001)
            bar.update(task, completed=done, units=units, rate=rate)

        yield advance


def _show_nothing(*_: Any) -> None:
    """Stand in for the progress bar."""
