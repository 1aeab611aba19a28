"""`results`: list jobs, the latest first."""

from __future__ import annotations

import click

from ...ledger import JobFilter
from ...schemas import Settings
from ..input.environment import open_ledger
from ..input.options import examples, filters, json_option, limit_option
from ..output.printing import Column, print_list, shown, state_cell
from ..output.times import local


@click.command(
    epilog=examples(
        "results --since 2h",
        "results --state failed --error-code 10/2018278",
        "results --state queued --state retrying --page-id 500725830264749",
        "results --page-id 500725830264749 --since 2026-01-31 --until 2026-01-31",
        "results --state failed --limit 1000 --json | jq -r .job_id",
    )
)
@filters(with_state=True)
@limit_option
@json_option
def results(*, wanted: JobFilter, limit: int, as_json: bool) -> None:
    """List jobs, the latest first. With --json, prints one object per line."""
    with open_ledger(Settings.from_environment()) as ledger:
        records = ledger.reader.find(wanted, limit)
    print_list(
        records,
        [
            Column("time"),
            Column("state"),
            Column("error_code"),
            Column("page", spare=2),
            Column("payload", fit="cut", spare=3),
            Column("job id"),
            Column("message", fit="cut", spare=1),
        ],
        lambda record: [
            local(record.finished_at or record.enqueued_at),
            state_cell(record.state),
            shown(record.error_code),
            shown(record.page_id),
            shown(record.job["message"]["payload_id"]),
            record.job_id,
            shown(record.error_message),
        ],
        as_json=as_json,
        if_none="no jobs found",
        limit=limit,
    )
