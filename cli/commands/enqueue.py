"""`enqueue`: enqueue the rows of a file, optionally as a campaign."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, cast

import click

from ...ledger import Ledger
from ...producer import Producer
from ...producer.preview import Outlook, Preview, look_ahead
from ...producer.producer import BATCH_SIZE
from ...schemas import (
    CampaignCanceled,
    EnqueueUnknown,
    InvalidJob,
    QueueUnavailable,
    Settings,
    parse_row,
)
from ...schemas.new_job import campaign_name_fault, with_default_key
from ...worker.tokens import fingerprint_of, read_tokens
from ..input.environment import open_ledger
from ..input.options import PERCENTAGE, check_can_confirm, confirm, examples, json_option
from ..input.rejects import MAX_SHOWN, MAX_SHOWN_BEFORE, Rejections, check_rejects_file, collected
from ..input.rows import Row, Rows
from ..output.preview_view import outlook_json, preview_lines, rows_text
from ..output.printing import print_notice, progress_bar

_CONFLICT_IN_FILE = "An earlier row has the same key and a different body."


@click.command(
    epilog=examples(
        "enqueue messages.jsonl",
        "enqueue campaign.csv --campaign november-sale --dry-run --rejects rejected.csv",
        "enqueue campaign.csv --campaign november-sale --canary 200 --hold-at 20%",
        "enqueue --format csv --json - < messages.txt",
    )
    + """

\b
A JSON line is the body of the API's request, which may also contain options:
  {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "__hrf_f_…"},
   "page_id": "500725830264749", "idempotency_key": "order-1001-paid", "urgent": true}

\b
CSV has a header row with some of these columns; an empty cell means that there is no value:
  recipient_id, payload_id, page_id, metadata,
  idempotency_key, campaign, send_at, expires_at, delivery, urgent

\b
A file is UTF-8 or UTF-16; CSV is separated by commas, semicolons or tabs. send_at and expires_at
take 2h or 1d (from when the row is read), 2026-01-31 09:00 (local time), or
2026-01-31T09:00:00+07:00. A file from export or --rejects can be enqueued without changes.
"""
)
@click.argument("file", type=click.File("rb"))
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl", "csv"]),
    help="Format of the file.  [default: from the file extension, else from the first character]",
)
@click.option(
    "--campaign",
    metavar="NAME",
    help="Enqueue the rows as a campaign, after a preview and a confirmation. A row without an "
    "idempotency key gets one, derived from campaign, page, recipient and payload.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read the whole file and show a preview, without storing anything.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write rejected rows to this file, with the reason. Correct them and enqueue the file.",
)
@click.option(
    "--allow-duplicates",
    is_flag=True,
    help="Campaign only: enqueue a row without an idempotency key even if an earlier row has the "
    "same page, recipient and payload.",
)
@click.option(
    "--canary",
    type=click.IntRange(min=1),
    metavar="N",
    help="Campaign only: send N messages first, and hold the rest until the campaign is released.",
)
@click.option(
    "--canary-max-failures",
    type=PERCENTAGE,
    metavar="P%",
    help="Release the rest automatically if at most this share of the canary fails.",
)
@click.option(
    "--hold-at",
    type=PERCENTAGE,
    metavar="P%",
    help="Campaign only: hold it if more than this share of its last 500 messages fails "
    "permanently.",
)
@click.option("--yes", is_flag=True, help="Enqueue a campaign without confirmation.")
@json_option
@click.pass_context
def enqueue(
    ctx: click.Context,
    *,
    file: BinaryIO,
    file_format: str | None,
    campaign: str | None,
    dry_run: bool,
    rejects: Path | None,
    allow_duplicates: bool,
    canary: int | None,
    canary_max_failures: float | None,
    hold_at: float | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Enqueue the rows of FILE, or of standard input (-).

    A row is rejected if it is invalid, or if its idempotency key belongs to a job with another
    body. Rejected rows are listed on standard error, and the exit status is 3.

    If every row has an idempotency key, the same file can be enqueued again, for example after
    Ctrl-C. Rows whose jobs are still kept (see HARASOCIAL_SENT_TTL_SECONDS) are counted as already
    there, and are not sent again. With --campaign every row has a key, which is kept for
    HARASOCIAL_CAMPAIGN_TTL_SECONDS. Otherwise, rows without a key are sent again.
    """
    only_of_campaign = {
        "--allow-duplicates": allow_duplicates,
        "--canary": canary,
        "--canary-max-failures": canary_max_failures,
        "--hold-at": hold_at,
    }
    _check_usage(campaign, only_of_campaign)
    if campaign is not None:
        check_can_confirm(given=yes or dry_run)
    settings = Settings.from_environment()
    name = str(getattr(file, "name", "-"))
    is_read_twice = campaign is not None and not dry_run
    with open_ledger(settings) as ledger, _rereadable(file, needed=is_read_twice) as stream:
        begin = stream.tell() if stream.seekable() else 0
        read = partial(
            Rows, stream, name, file_format, campaign=campaign, allow_duplicates=allow_duplicates
        )
        rows = read()
        if rejects is not None:
            check_rejects_file(rejects, rows)
        for notice in rows.notices:
            print_notice(notice)
        if dry_run or campaign is not None:
            # Write the rejects file only once: now, or when the other rows are enqueued.
            with collected(
                rejects if dry_run else None,
                rows,
                as_json=as_json and dry_run,
                max_shown=MAX_SHOWN if dry_run else MAX_SHOWN_BEFORE,
            ) as found:
                preview = _preview(rows, found)
                outlook = _look_ahead(preview, ledger, settings, campaign)
                _print_preview(preview, outlook, found, is_result=dry_run)
            if dry_run:
                ctx.exit(3 if found.count else 0)
        if campaign is not None:
            if preview.job_count:
                question = f"Enqueue {rows_text(preview.job_count)} as campaign {campaign}?"
                if not yes:
                    confirm(question, "enqueued")
                ledger.announce_campaign(
                    campaign,
                    rows=preview.job_count,
                    canary=canary,
                    canary_max_failures=canary_max_failures,
                    hold_at=hold_at,
                )
            stream.seek(begin)
            rows = read()
        with collected(rejects, rows, as_json=as_json) as rejections:
            _enqueue(Producer(settings, ledger=ledger), rows, rejections)
        if campaign is not None and preview.job_count:
            # The campaign has as many rows as jobs. Some rows may be jobs of another campaign.
            ledger.announce_campaign(campaign, rows=0)
    if rejections.count:
        ctx.exit(3)


def _check_usage(campaign: str | None, only_of_campaign: Mapping[str, object]) -> None:
    if campaign is None:
        for option, value in only_of_campaign.items():
            if value:
                raise click.UsageError(f"{option} requires --campaign NAME.")
    elif fault := campaign_name_fault(campaign):
        raise click.BadParameter(fault, param_hint="--campaign")
    if only_of_campaign["--canary-max-failures"] and not only_of_campaign["--canary"]:
        raise click.UsageError("--canary-max-failures requires --canary N.")


@contextmanager
def _rereadable(file: BinaryIO, *, needed: bool) -> Iterator[BinaryIO]:
    """Yield the file. If `needed`, copy an input that can be read only once, such as a pipe."""
    if not needed or file.seekable():
        yield file
        return
    with TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield cast("BinaryIO", copy)


def _preview(rows: Rows, rejections: Rejections) -> Preview:
    """Validate all rows without storing any, and return a preview of them."""
    preview = Preview(round(time.time() * 1000))
    with closing(preview), progress_bar(rows.size_bytes, "rows", "reading") as advance:
        for count, row in enumerate(rows, start=1):
            errors = row.errors
            if errors is None:
                try:
                    new = with_default_key(parse_row(row.body))
                except InvalidJob as error:
                    errors = error.errors
                else:
                    if preview.add(new) == "conflict":
                        errors = {"idempotency_key": [_CONFLICT_IN_FILE]}
            if errors is not None:
                rejections.add(row, errors)
            if count % BATCH_SIZE == 0:
                advance(rows.bytes_read, count)
    return preview


def _look_ahead(
    preview: Preview, ledger: Ledger, settings: Settings, campaign: str | None
) -> Outlook:
    """Return a preview of what would be sent, and when.

    Raises:
        CampaignCanceled: the campaign is canceled.
        SettingsError: the tokens file cannot be read.
    """
    known = None if campaign is None else ledger.reader.campaign(campaign)
    if known is not None and known.canceled:
        raise CampaignCanceled(known.name)
    tokens = read_tokens(settings.tokens_file) if settings.tokens_file else {}

    def token_of(page_id: str) -> str | None:
        token = tokens.get(page_id, settings.token)
        return None if token is None else fingerprint_of(token)

    return look_ahead(
        preview,
        ledger.reader,
        settings,
        campaign=known,
        token_of=token_of if tokens or settings.token else None,
    )


def _print_preview(
    preview: Preview, outlook: Outlook, rejections: Rejections, *, is_result: bool
) -> None:
    """Print the preview: on standard output as the result, or on standard error before a prompt."""
    rejections.finish(
        {
            "valid": preview.job_count + preview.duplicate_count,
            "duplicates": preview.duplicate_count,
            **outlook_json(outlook),
        }
    )
    if rejections.as_json:
        return
    write = click.echo if is_result else print_notice
    for line in preview_lines(preview, outlook, rejections.count):
        write(line)
    if is_result:
        write("nothing was enqueued (--dry-run)")


def _enqueue(producer: Producer, rows: Rows, rejections: Rejections) -> None:
    """Enqueue the rows in batches, and print the results."""
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
    # Warn before the rows are stored, so that the user can still interrupt the command.
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
    """The results of the rows processed so far."""

    def __init__(self, rejections: Rejections) -> None:
        self.rejections = rejections
        self.new = 0
        self.already_there = 0
        #: The last line that was processed.
        self.last_line = 0
        #: The last line of the batch whose outcome is unknown, if there is one.
        self.unknown_to_line: int | None = None
        self._lacks_keys = False

    @property
    def accepted(self) -> int:
        """Number of rows that were enqueued by this run or an earlier one."""
        return self.new + self.already_there

    def warn_of_missing_key(self, rows: Iterable[Row]) -> None:
        """Warn once if a row has no idempotency key and is not in a campaign."""
        if self._lacks_keys:
            return
        for row in rows:
            body = row.body
            if isinstance(body, dict) and not (body.get("idempotency_key") or body.get("campaign")):
                self._lacks_keys = True
                print_notice(
                    f"warning: line {row.line} has no idempotency_key. If this file is enqueued "
                    "again, such rows are sent again. To prevent that, give every row an "
                    "idempotency_key (a column in CSV, a field in JSON lines), or enqueue them "
                    "with --campaign NAME."
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
        """Return the last line that was enqueued, and how to continue."""
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
            text += ". Run the same command again to continue; no row is enqueued twice"
        return text
