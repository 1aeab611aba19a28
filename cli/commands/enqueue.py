"""`enqueue`: enqueue the rows of a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import BinaryIO

import click

from ...producer import Producer
from ...producer.producer import BATCH_SIZE
from ...schemas import EnqueueUnknown, QueueUnavailable
from ..input.connection import open_producer
from ..input.options import examples, json_option
from ..input.rows import Row, read_rows
from ..output.printing import json_text, print_notice, progress_bar

#: Rejected rows that are shown to people; --json has them all.
MAX_REJECTED_SHOWN = 20


@click.command(
    epilog=examples(
        "enqueue messages.jsonl",
        "enqueue campaign.csv",
        "enqueue --format csv --json - < campaign.txt",
    )
    + """

\b
A JSON line is the API's own body, with options beside its fields if wanted:
  {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "__hrf_f_…"},
   "page_id": "500725830264749", "idempotency_key": "order-1001-paid", "urgent": true}

\b
CSV has a header row with some of these columns; an empty cell is left out:
  recipient_id, payload_id, page_id, metadata,
  idempotency_key, send_at, expires_at, delivery, urgent

\b
send_at and expires_at take 2h or 1d (from when the row is read), 2026-01-31 09:00 (local time),
or 2026-01-31T09:00:00+07:00.
"""
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv"]),
    help="Of the file.  [default: by its ending, else by its first character]",
)
@json_option
@click.pass_context
def enqueue(ctx: click.Context, file: BinaryIO, file_format: str | None, as_json: bool) -> None:
    """Enqueue the rows of FILE, or of standard input (-).

    Rejected rows are named on standard error, and the exit status is 3: rows that break the
    contract, and rows whose idempotency key belongs to a job with another body.

    With an idempotency_key on every row, the same file can be enqueued again: rows whose jobs are
    still kept (see HARASOCIAL_SENT_TTL_SECONDS) are counted as already enqueued, and not sent
    again. Rows without a key are sent again.
    """
    name = str(getattr(file, "name", "-"))
    tally = _Tally(as_json)
    try:
        with open_producer() as producer, progress_bar(_size(file), "rows") as advance:
            _enqueue(producer, read_rows(file, name, file_format), tally, file, advance)
    except (QueueUnavailable, OSError, KeyboardInterrupt):
        print_notice(tally.where_it_stopped())
        tally.finish()
        raise
    tally.finish()
    if tally.rejected:
        ctx.exit(3)


class _Tally:
    """What became of the rows so far. Holds a few of the rejected ones, however many there are.

    With `as_json`, rejected rows are printed as they come.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: list[tuple[int, dict[str, list[str]]]] = []
        self._has_warned = False
        self.new = 0
        self.already_enqueued = 0
        self.rejected = 0
        #: The last line that is done with.
        self.last_line = 0
        #: The last line of the batch that was perhaps stored, if that cannot be known.
        self.unknown_to_line: int | None = None

    @property
    def accepted(self) -> int:
        """Rows that are enqueued, by this run or an earlier one."""
        return self.new + self.already_enqueued

    def warn_of_missing_key(self, rows: Iterable[Row]) -> None:
        """Warn once, if a row has no idempotency key."""
        if self._has_warned:
            return
        for row in rows:
            if isinstance(row.body, dict) and row.body.get("idempotency_key") is None:
                self._has_warned = True
                print_notice(
                    f"warning: line {row.line} has no idempotency_key. If this file is enqueued "
                    "again, such rows are sent again. To prevent that, give every row an "
                    "idempotency_key: a column in CSV, a field in JSON lines."
                )
                return

    def reject(self, line: int, errors: dict[str, list[str]]) -> None:
        """Note a rejected row."""
        self.rejected += 1
        if self._as_json:
            opening = '{"rejected": [' if self.rejected == 1 else ", "
            click.echo(opening + json_text({"line": line, "errors": errors}), nl=False)
        elif self.rejected <= MAX_REJECTED_SHOWN:
            self._shown.append((line, errors))

    def finish(self) -> None:
        """Print what is left to say."""
        if self._as_json:
            opening = "" if self.rejected else '{"rejected": ['
            counts = {
                "accepted": self.accepted,
                "new": self.new,
                "already_enqueued": self.already_enqueued,
            }
            click.echo(f"{opening}], {json_text(counts)[1:]}")
            return
        for line, errors in self._shown:
            for path, texts in errors.items():
                print_notice(f"line {line}: {path}: {' '.join(texts)}")
        if self.rejected > len(self._shown):
            print_notice(
                f"and {self.rejected - len(self._shown)} more rejected rows (--json has all)"
            )
        click.echo(
            f"enqueued {self.new}, already enqueued {self.already_enqueued}, "
            f"rejected {self.rejected}"
        )

    def where_it_stopped(self) -> str:
        """Say up to which line the file is done, for who goes on from there."""
        if not self.last_line and self.unknown_to_line is None:
            return "stopped before the first row; none was enqueued"
        text = f"stopped: {self.accepted} were enqueued, from the lines up to {self.last_line}"
        if self.unknown_to_line is None:
            return f"{text}; none after that"
        return (
            f"{text}; those of lines {self.last_line + 1} to {self.unknown_to_line} may or may not "
            "have been; none after that"
        )


def _enqueue(
    producer: Producer,
    rows: Iterator[Row],
    tally: _Tally,
    file: BinaryIO,
    advance: Callable[[int, int], None],
) -> None:
    """Enqueue the rows, batch by batch, and keep the tally."""
    while batch := list(islice(rows, BATCH_SIZE)):
        readable = [row for row in batch if row.errors is None]
        # Before they are stored: whoever reads it can still stop the rest.
        tally.warn_of_missing_key(readable)
        tally.unknown_to_line = batch[-1].line
        try:
            report = producer.enqueue_many((row.body for row in readable), on_invalid="skip")
        except QueueUnavailable as error:
            if not isinstance(error, EnqueueUnknown):
                tally.unknown_to_line = None
            raise
        tally.new += report.new_count
        tally.already_enqueued += report.already_enqueued_count
        tally.last_line, tally.unknown_to_line = batch[-1].line, None
        wrong = [(row.line, row.errors) for row in batch if row.errors is not None]
        wrong += [(readable[found.index].line, found.errors) for found in report.rejected]
        for line, errors in sorted(wrong, key=lambda pair: pair[0]):
            tally.reject(line, errors)
        advance(file.tell() if file.seekable() else 0, tally.accepted + tally.rejected)


def _size(file: BinaryIO) -> int | None:
    """Return the bytes of a regular file, or None of anything else."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
