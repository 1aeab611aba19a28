"""Collect the rejected rows of `enqueue`: print them, and write them to the rejects file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ..output.printing import json_text, print_notice
from .rejects import Reject, open_rejects
from .rows import Row, Rows

#: Maximum number of rejected rows in the text output; --json prints all of them.
MAX_SHOWN = 20
#: The same limit before a prompt. After the prompt, the rows are printed again.
MAX_SHOWN_BEFORE = 5


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
