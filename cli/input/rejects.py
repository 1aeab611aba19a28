"""The rejected rows of `enqueue`: printed, and written to the rejects file with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ...schemas.export import BYTE_ORDER_MARK, csv_text, unescape_cell
from ..output.files import open_output
from ..output.printing import json_text, print_notice
from .rows import FORMAT_BY_ENDING, REASON, Row, Rows

#: Maximum number of rejected rows in the text output; --json prints all of them.
MAX_SHOWN = 20
#: The same limit before a prompt. After the prompt, the rows are printed again.
MAX_SHOWN_BEFORE = 5

#: Adds a row and its errors by field to the rejects file.
Reject = Callable[[Row, Mapping[str, Sequence[str]]], object]


def check_rejects_file(rejects: Path, rows: Rows) -> None:
    """Check the name of the rejects file.

    Raises:
        click.BadParameter: it is standard output or the input file, or its extension belongs to
            another format.
    """
    if str(rejects) == "-":
        raise click.BadParameter(
            "must be a file, because standard output has the counts.", param_hint="--rejects"
        )
    read = Path(rows.name)
    if rejects.exists() and read.exists() and rejects.samefile(read):
        raise click.BadParameter(
            "is the input file; its other rows would be lost. Choose another name.",
            param_hint="--rejects",
        )
    expected = FORMAT_BY_ENDING.get(rejects.suffix.lower(), rows.file_format)
    if expected != rows.file_format:
        kind = "JSON lines" if rows.file_format == "jsonl" else "CSV"
        raise click.BadParameter(
            f"the rows are {kind}, and the rejected ones will be too: end its name in "
            f".{rows.file_format}.",
            param_hint="--rejects",
        )


class Rejections:
    """Counts rejected rows and keeps the first few of them, in bounded memory.

    Args:
        write: adds a row to the rejects file.
        as_json: print each row immediately, as a part of one JSON object.
        max_shown: maximum number of rows to print as text.
    """

    def __init__(self, write: Reject, *, as_json: bool, max_shown: int = MAX_SHOWN) -> None:
        self._write = write
        self._max_shown = max_shown
        self.as_json = as_json
        self._shown: list[tuple[int, Mapping[str, Sequence[str]]]] = []
        self.count = 0

    def add(self, row: Row, errors: Mapping[str, Sequence[str]]) -> None:
        """Add a rejected row, with its errors by field."""
        self.count += 1
        self._write(row, errors)
        if self.as_json:
            opening = '{"rejected": [' if self.count == 1 else ", "
            click.echo(opening + json_text({"line": row.line, "errors": errors}), nl=False)
        elif len(self._shown) < self._max_shown:
            self._shown.append((row.line, errors))

    def finish(self, results: Mapping[str, object]) -> None:
        """Print the kept rows; with --json, complete the object with `results`."""
        if self.as_json:
            opening = "" if self.count else '{"rejected": ['
            click.echo(f"{opening}], {json_text(results)[1:]}")
            return
        for line, errors in self._shown:
            for path, texts in errors.items():
                print_notice(f"line {line}: {path}: {' '.join(texts)}")
        if self.count > len(self._shown):
            print_notice(
                f"and {self.count - len(self._shown):,} more rejected rows (--json shows all, "
                "--rejects FILE keeps all)"
            )


@contextmanager
def collected(
    rejects: Path | None, rows: Rows, *, as_json: bool, max_shown: int = MAX_SHOWN
) -> Iterator[Rejections]:
    """Yield the collector of rejected `rows`. It also writes the file `rejects`, if given."""
    with open_rejects(rejects, rows) as write:
        yield Rejections(write, as_json=as_json, max_shown=max_shown)


@contextmanager
def open_rejects(rejects: Path | None, rows: Rows) -> Iterator[Reject]:
    """Yield a function that adds a row of `rows` and its errors to the file `rejects`, if given."""
    if rejects is None:
        yield lambda _row, _errors: None
        return
    with open_output(rejects, "--rejects") as write:
        if rows.file_format == "jsonl":
            yield lambda row, errors: write(_json_line(row, errors))
            return
        if rows.columns:
            titles = [REASON, *_without_reason(rows.columns, rows.columns)]
            write(BYTE_ORDER_MARK + csv_text([titles], rows.delimiter))
        yield lambda row, errors: write(_csv_line(row, errors, rows))


def _reason(row: Row, errors: Mapping[str, Sequence[str]]) -> str:
    texts = "; ".join(f"{path}: {' '.join(texts)}" for path, texts in errors.items())
    return f"line {row.line}: {texts}"


def _csv_line(row: Row, errors: Mapping[str, Sequence[str]], rows: Rows) -> str:
    cells = map(unescape_cell, _without_reason(row.source or (), rows.columns))
    return csv_text([[_reason(row, errors), *cells]], rows.delimiter)


def _without_reason(cells: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the cells without the reason column of an earlier rejects file."""
    earlier = columns.index(REASON) if REASON in columns else len(cells)
    return [*cells[:earlier], *cells[earlier + 1 :]]


def _json_line(row: Row, errors: Mapping[str, Sequence[str]]) -> str:
    source = row.source
    if not isinstance(source, dict):
        text = source if source is None or isinstance(source, str) else json.dumps(source)
        source = {"line": text}
    fields = {name: value for name, value in source.items() if name != REASON}
    return json.dumps({REASON: _reason(row, errors), **fields}) + "\n"
