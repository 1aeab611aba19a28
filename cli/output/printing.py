"""Print tables as text and values as JSON, without control characters."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import click

from ...schemas import State, sanitize

#: The name of the command.
NAME = "harasocial-dispatch"

#: Maximum length of a value in the text output; metadata and error messages fit.
MAX_SHOWN_CHARACTERS = 500
#: Maximum length of a message on standard error.
_MAX_COMPLAINT_CHARACTERS = 4000
#: Number of spaces after each column of a table.
GAP = 2
#: Minimum width of a column.
_NARROWEST = 8
#: If a cut or wrapped column would be narrower than this, other columns are omitted.
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
    """A table's column. `fit`: how to handle texts that are too long for a narrow terminal.

    `spare`: if that is not enough, columns are omitted, the highest number first; 0 means never.
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
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def shown(value: object) -> str:
    """Return `value` as one line without control characters; an empty text for None."""
    return "" if value is None else sanitize(str(value), MAX_SHOWN_CHARACTERS)


def jobs(count: int) -> str:
    """Return a count of jobs as text: `1 job` or `2 jobs`."""
    return "1 job" if count == 1 else f"{count} jobs"


def state_cell(state: State) -> Cell:
    """Return the state in its color."""
    return Cell(state.value, STATE_STYLES[state])


def json_text(value: object) -> str:
    """Return `value` as JSON on one line, in printable ASCII without control characters."""
    return json.dumps(value)


def print_json(value: object) -> None:
    """Print `value` as JSON on one line."""
    click.echo(json_text(value))


class Problem(NamedTuple):
    """An error: its type, its texts, the exit status, additional JSON fields, and a hint."""

    kind: str
    texts: Sequence[str]
    exit_status: int
    details: Mapping[str, object] = MappingProxyType({})
    hint: str = ""


#: Key in the meta of click's context: whether standard error is JSON (--json).
JSON_ERRORS = f"{__name__}.json_errors"


def print_notice(message: str) -> None:
    """Print one line on standard error; with --json, as `{"notice": message}`."""
    message = sanitize(message, _MAX_COMPLAINT_CHARACTERS)
    click.echo(json_text({"notice": message}) if _is_json_wanted() else message, err=True)


def print_error(problem: Problem, *, as_json: bool) -> None:
    """Print an error on standard error, as text or as one JSON object."""
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
    """Print a table: with colors and fitted on a terminal, as plain aligned text elsewhere."""
    cells = [
        [
            Cell(shown(cell.text), cell.style) if isinstance(cell, Cell) else Cell(shown(cell))
            for cell in row
        ]
        for row in rows
    ]
    if not (is_terminal() and _print_rich_table(columns, cells)):
        _print_plain_table(columns, cells)


class Entry(Protocol):
    """An entry of a list."""

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object to print."""


EntryT = TypeVar("EntryT", bound=Entry)


def print_list(
    entries: Sequence[EntryT],
    columns: Sequence[Column],
    row: Callable[[EntryT], Sequence[str | Cell]],
    *,
    as_json: bool,
    if_none: str,
    limit: int | None = None,
) -> None:
    """Print a list: as a table, or one JSON object per line.

    Args:
        row: returns the cells of an entry.
        if_none: the notice if there are no entries.
        limit: the maximum number of entries that were read.
    """
    if as_json:
        for entry in entries:
            print_json(entry.as_json())
    elif not entries:
        print_notice(if_none)
    else:
        print_table(columns, [row(entry) for entry in entries])
        if len(entries) == limit:
            print_notice(f"these are the latest {limit}; there may be more (--limit)")


def print_facts(facts: Iterable[tuple[str, str]], label_width: int = 17) -> None:
    """Print labels with their texts, one per line. Empty texts are omitted."""
    for label, text in facts:
        if text:
            click.echo(f"{label + ':':<{label_width}}{text}")


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
    """Print the table with rich; return False if rich is not installed (the extra `cli`)."""
    try:
        from rich.console import Console  # noqa: PLC0415 - optional

        console = Console()
        if console.is_dumb_terminal:
            # rich cannot detect the width of such a terminal, and would cut ids.
            return False
        grid, width = rich_table(columns, rows, console.width)
    except ImportError:
        return False
    # Lines may exceed the width, so that values such as ids are never cut.
    Console(width=max(console.width, width)).print(grid)
    return True


def rich_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], terminal_width: int
) -> tuple[Any, int]:
    """Return the table for rich, and the width that it needs."""
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
        # rich does not parse markup in a Text.
        grid.add_row(*(Text(cell.text, style=cell.style) for cell in row))
    return grid, sum(widths) + GAP * (len(widths) - 1)


def kept_columns(
    columns: Sequence[Column], widest: Sequence[int], terminal_width: int
) -> list[int]:
    """Return the indices of the columns that fit into this width."""
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
    """Return each column's width: `widest` if it fits, else an equal share of the rest."""
    widths = list(widest)
    flexible = sorted(
        (i for i, column in enumerate(columns) if column.fit != "whole"), key=lambda i: widest[i]
    )
    whole = sum(widest) - sum(widest[i] for i in flexible)
    left = terminal_width - GAP * (len(columns) - 1) - whole
    # The narrowest first: the other columns get the unused part of its share.
    for rank, i in enumerate(flexible):
        share = max(left // (len(flexible) - rank), _NARROWEST, len(columns[i].title))
        widths[i] = min(widest[i], share)
        left -= widths[i]
    return widths


@contextmanager
def progress_bar(
    total: int | None, unit: str, label: str = "", *, is_hidden: bool = False
) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error during the block, if it is a terminal.

    With `is_hidden`, show none.

    The bar has the label, the number of units done, their average rate, and the time left.
    Yields a function to call with the completed part of `total`, and the number of units.
    """
    try:
        from rich import progress  # noqa: PLC0415 - optional
        from rich.console import Console  # noqa: PLC0415 - optional
    except ImportError:
        yield _show_nothing
        return
    if is_hidden or not sys.stderr.isatty():
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
    """Do nothing, in place of the progress bar."""
