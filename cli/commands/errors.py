"""`errors`: count failed jobs by error code."""

from __future__ import annotations

from dataclasses import replace

import click

from ...ledger import JobFilter
from ...schemas import Settings
from ...schemas.error_codes import row_of
from ..input.environment import open_ledger
from ..input.options import examples, filters, json_option
from ..output.job_view import meaning
from ..output.printing import Column, print_json, print_notice, print_table, shown
from ..output.times import local


@click.command(
    epilog=examples("errors", "errors --since 1d --page-id 500725830264749", "errors --json")
)
@filters()
@json_option
def errors(*, wanted: JobFilter, as_json: bool) -> None:
    """Count failed jobs by error code, the most frequent first.

    The column "replay" shows whether a replay helps: passing (the cause is temporary), fixable
    (fix the cause first) or never.
    """
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        counts = ledger.reader.count_by_error_code(wanted).by_name
        if as_json:
            print_json(counts)
            return
        if not counts:
            print_notice("no failed jobs")
            return
        rows = []
        for code, count in counts.items():
            latest = ledger.reader.find(replace(wanted, error_codes=(code,)), 1)
            example = latest[0] if latest else None
            rows.append(
                [
                    code,
                    str(count),
                    row_of(code).replay.value,
                    local(example.finished_at) if example else "",
                    meaning(example, settings.language) if example else "",
                    shown(example.error_message) if example else "",
                ]
            )
    print_table(
        [
            Column("error_code"),
            Column("count", right=True),
            Column("replay"),
            Column("latest", spare=1),
            Column("meaning", fit="wrap"),
            Column("message of the latest", fit="cut", spare=2),
        ],
        rows,
    )
