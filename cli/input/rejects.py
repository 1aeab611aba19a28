"""Write the rejects file: rejected rows with the original columns and the reason."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ...schemas.export import BYTE_ORDER_MARK, csv_text, unescape_cell
from ..output.files import open_output
from .rows import FORMAT_BY_ENDING, REASON, Row, Rows

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


def errors_text(errors: Mapping[str, Sequence[str]]) -> str:
    """Return the errors of a row in one line."""
    return "; ".join(f"{path}: {' '.join(texts)}" for path, texts in errors.items())


def _reason(row: Row, errors: Mapping[str, Sequence[str]]) -> str:
    return f"line {row.line}: {errors_text(errors)}"


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
