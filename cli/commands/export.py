"""`export`: write any number of failed jobs to a file for a spreadsheet or a program."""

from __future__ import annotations

from pathlib import Path

import click

from ...ledger import JobFilter
from ...schemas import JobRecord, Settings
from ...schemas.export import COLUMNS, csv_header, csv_text, json_lines, row
from ...schemas.language import Language
from ..input.environment import open_ledger
from ..input.options import examples, filters
from ..output.files import open_output
from ..output.printing import is_terminal, jobs, print_notice, progress_bar, shown


@click.command(
    epilog=examples(
        "export -o failed.csv",
        "export --error-code 10/2018278 --since 1d -o failed.jsonl",
        "export --page-id 500725830264749 --format jsonl | jq -r .job.metadata",
    )
)
@filters()
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl"]),
    help="CSV, or JSON lines as in `show --json`.  [default: from the file extension, else csv]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    default="-",
    metavar="FILE",
    help="Output file; - is standard output.  [default: -]",
)
def export(
    *,
    wanted: JobFilter,
    kind: str | None,
    output: Path,
) -> None:
    """Write failed jobs to a file, the latest first.

    The file contains recipients' ids and metadata. In CSV, an apostrophe precedes long numbers and
    values that look like a formula or a date, so that a spreadsheet does not change them.
    `enqueue` can read the file: each row becomes a new job.
    """
    if kind is None:
        kind = "jsonl" if output.suffix in (".jsonl", ".ndjson", ".json") else "csv"
    to_screen = str(output) == "-" and is_terminal()
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger, open_output(output, "--output") as write:
        total = ledger.reader.count_failed(wanted)
        done = 0
        if kind == "csv":
            write(csv_text([COLUMNS]) if to_screen else csv_header())
        # On a terminal, the printed jobs already show progress.
        with progress_bar(total, "jobs", "exporting", is_hidden=to_screen) as advance:
            for page in ledger.reader.failed_pages(wanted):
                write(_text(kind, page.records, settings.language, to_screen=to_screen))
                done += len(page.records)
                advance(done, done)
    if not to_screen:
        print_notice(f"exported {jobs(done)}")


def _text(kind: str, records: list[JobRecord], language: Language, *, to_screen: bool) -> str:
    if kind == "jsonl":
        return json_lines(records)
    rows = (row(record, language) for record in records)
    if to_screen:
        # Job values must not send control characters to the terminal.
        return csv_text([shown(cell) for cell in cells] for cells in rows)
    return csv_text(rows)
