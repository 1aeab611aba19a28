"""`enqueue`: enqueue the rows of a file, however many there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from ...producer import Producer
from ...producer.producer import BATCH_SIZE
from ...schemas import EnqueueUnknown, QueueUnavailable, Settings
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..input.rejections import Rejections, collected
from ..input.rejects import check_rejects_file
from ..input.rows import Row, Rows
from ..output.printing import print_notice, progress_bar


@click.command(
    epilog=examples(
        "enqueue messages.jsonl",
        "enqueue campaign.csv --rejects rejected.csv",
        "enqueue --format csv --json - < messages.txt",
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
A file is UTF-8 or UTF-16; CSV is separated by commas, semicolons or tabs. send_at and expires_at
take 2h or 1d (from when the row is read), 2026-01-31 09:00 (local time), or
2026-01-31T09:00:00+07:00. A file from export, or from --rejects, is read as it is.
"""
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv"]),
    help="Format of the file.  [default: by its ending, else by its first character]",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write rejected rows to this file, with the reason, to correct and enqueue again.",
)
@json_option
@click.pass_context
def enqueue(
    ctx: click.Context,
    *,
    file: BinaryIO,
    file_format: str | None,
    rejects: Path | None,
    as_json: bool,
) -> None:
    """Enqueue the rows of FILE, or of standard input (-).

    Rejected rows are named on standard error, and the exit status is 3: rows that break the
    contract, and rows whose idempotency key belongs to a job with another body.

    With an idempotency key on every row, the same file can be enqueued again, also after Ctrl-C:
    rows whose jobs are still kept (see HARASOCIAL_SENT_TTL_SECONDS) are counted as already there,
    and not sent again. Rows without a key are sent again.
    """
    with open_ledger(settings := Settings.from_environment()) as ledger:
        rows = Rows(file, str(getattr(file, "name", "-")), file_format)
        if rejects is not None:
            check_rejects_file(rejects, rows)
        for notice in rows.notices:
            print_notice(notice)
        with collected(rejects, rows, as_json=as_json) as rejections:
            _enqueue(Producer(settings, ledger=ledger), rows, rejections)
    if rejections.count:
        ctx.exit(3)


def _enqueue(producer: Producer, rows: Rows, rejections: Rejections) -> None:
    """Enqueue the rows, batch by batch, and print what became of them."""
    tally = _Tally(rejections)
    try:
        with progress_bar(rows.size_bytes, "rows", "enqueuing") as advance:
            iterator = iter(rows)
            while batch := list(islice(iterator, BATCH_SIZE)):
                _enqueue_batch(producer, batch, tally)
                advance(rows.bytes_read, tally.accepted + rejections.count)
    except (QueueUnavailable, OSError, KeyboardInterrupt):
        print_notice(tally.where_it_stopped())
        tally.finish()
        raise
    tally.finish()


def _enqueue_batch(producer: Producer, batch: Sequence[Row], tally: _Tally) -> None:
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
    tally.already_there += report.already_enqueued_count
    tally.last_line, tally.unknown_to_line = batch[-1].line, None
    rejected = [(row, row.errors) for row in batch if row.errors is not None]
    rejected += [(readable[found.index], found.errors) for found in report.rejected]
    for row, errors in sorted(rejected, key=lambda pair: pair[0].line):
        tally.rejections.add(row, errors)


class _Tally:
    """What became of the rows so far."""

    def __init__(self, rejections: Rejections) -> None:
        self.rejections = rejections
        self.new = 0
        self.already_there = 0
        #: The last line that is done with.
        self.last_line = 0
        #: The last line of the batch that was perhaps stored, if that cannot be known.
        self.unknown_to_line: int | None = None
        self._lacks_keys = False

    @property
    def accepted(self) -> int:
        """Rows that are enqueued, by this run or an earlier one."""
        return self.new + self.already_there

    def warn_of_missing_key(self, rows: Iterable[Row]) -> None:
        """Warn once, if a row has no idempotency key."""
        if self._lacks_keys:
            return
        for row in rows:
            body = row.body
            if isinstance(body, dict) and body.get("idempotency_key") is None:
                self._lacks_keys = True
                print_notice(
                    f"warning: line {row.line} has no idempotency_key. If this file is enqueued "
                    "again, such rows are sent again. To prevent that, give every row an "
                    "idempotency_key: a column in CSV, a field in JSON lines."
                )
                return

    def finish(self) -> None:
        """Print the rejected rows and the counts."""
        self.rejections.finish(
            {
                "accepted": self.accepted,
                "new": self.new,
                "already_enqueued": self.already_there,
            }
        )
        if not self.rejections.as_json:
            click.echo(
                f"{self.new:,} new, {self.already_there:,} already there, "
                f"{self.rejections.count:,} rejected"
            )

    def where_it_stopped(self) -> str:
        """Return up to which line the file is enqueued, and how to continue."""
        if not self.last_line and self.unknown_to_line is None:
            return "stopped before the first row; none was enqueued"
        text = f"stopped: {self.accepted} were enqueued, from the lines up to {self.last_line}"
        if self.unknown_to_line is not None:
            text += (
                f"; those of lines {self.last_line + 1} to {self.unknown_to_line} may or may not "
                "have been"
            )
        text += "; none after that"
        if not self._lacks_keys:
            text += ". The same command continues, and enqueues no row twice"
        return text
