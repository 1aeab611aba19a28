"""The rejected rows of `enqueue`, as they come: printed, and written to the file for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from ..output.printing import json_text, print_notice
from .rejects import Reject, open_rejects
from .rows import Row, Rows

#: Rejected rows that are shown to people; --json has them all.
MAX_SHOWN = 20
#: The same before a question, after which they are shown again.
MAX_SHOWN_BEFORE = 5


class Rejections:
    """Counts rejected rows, and holds a few of them, however many there are.

    Args:
        write: adds a row to the file of rejected rows.
        as_json: print each row as it comes, as a part of one JSON object.
        max_shown: how many are printed otherwise.
    """

    def __init__(self, write: Reject, *, as_json: bool, max_shown: int = MAX_SHOWN) -> None:
        self._write = write
        self._max_shown = max_shown
        self.as_json = as_json
        self._shown: list[tuple[int, Mapping[str, Sequence[str]]]] = []
        self.count = 0

    def add(self, row: Row, errors: Mapping[str, Sequence[str]]) -> None:
        """Note a rejected row, and what is wrong with it by field."""
        self.count += 1
        self._write(row, errors)
        if self.as_json:
            opening = '{"rejected": [' if self.count == 1 else ", "
            click.echo(opening + json_text({"line": row.line, "errors": errors}), nl=False)
        elif len(self._shown) < self._max_shown:
            self._shown.append((row.line, errors))

    def finish(self, results: Mapping[str, object]) -> None:
        """Print the rows that were held; with --json, end the object, with `results` in it."""
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
    """Yield what collects the rejected of `rows`, also in the file `rejects` if there is one."""
    with open_rejects(rejects, rows) as write:
        yield Rejections(write, as_json=as_json, max_shown=max_shown)
