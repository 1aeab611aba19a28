"""`results`, `errors`, `show` and `stats`: look at jobs; nothing is changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import click

from ..ledger import JobFilter
from ..ledger.connection import address
from ..schemas import Settings, iso_utc
from .connecting import open_ledger, open_producer
from .job_view import meaning, print_job
from .options import NAME, examples, filters, json_option
from .pause_view import PAUSE_COLUMNS, pause_rows
from .printing import Column, complain, print_json, print_table, shown, state_cell
from .times import from_stored, local

#: Every worker sweeps each second; one that is busy, or waits for Redis, may be late.
_WORKERS_GONE_SECONDS = 10.0


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
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Jobs at most.",
)
@json_option
def results(*, wanted: JobFilter, limit: int, as_json: bool) -> None:
    """List jobs, the latest first. With --json, one object a line."""
    with open_ledger(Settings.from_environment()) as ledger:
        records = ledger.lookup.find(wanted, limit)
    if as_json:
        for record in records:
            print_json(record.as_json())
        return
    if not records:
        complain("no jobs found")
        return
    print_table(
        [
            Column("time"),
            Column("state"),
            Column("error_code"),
            Column("page", spare=2),
            Column("payload", fit="cut", spare=3),
            Column("job id"),
            Column("message", fit="cut", spare=1),
        ],
        [
            [
                local(record.finished_at or record.enqueued_at),
                state_cell(record.state),
                shown(record.error_code),
                shown(record.page_id),
                shown(record.job["message"]["payload_id"]),
                record.job_id,
                shown(record.error_message),
            ]
            for record in records
        ],
    )
    if len(records) == limit:
        complain(f"these are the latest {limit}; there may be more (--limit)")


@click.command(
    epilog=examples("errors", "errors --since 1d --page-id 500725830264749", "errors --json")
)
@filters()
@json_option
def errors(*, wanted: JobFilter, as_json: bool) -> None:
    """Count failed jobs by error code, the most frequent first."""
    with open_ledger(Settings.from_environment()) as ledger:
        counts = ledger.lookup.count_errors(wanted)
        if as_json:
            print_json(counts)
            return
        if not counts:
            complain("no failed jobs")
            return
        rows = []
        for code, count in counts.items():
            latest = ledger.lookup.find(replace(wanted, error_codes=(code,)), 1)
            example = latest[0] if latest else None
            rows.append(
                [
                    code,
                    str(count),
                    local(example.finished_at) if example else "",
                    meaning(example) if example else "",
                    shown(example.error_message) if example else "",
                ]
            )
    print_table(
        [
            Column("error_code"),
            Column("count", right=True),
            Column("latest", spare=1),
            Column("meaning", fit="wrap"),
            Column("message of the latest", fit="cut", spare=2),
        ],
        rows,
    )


@click.command(epilog=examples("show 1f0c…", "show 1f0c… --json"))
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show a job and its attempts.

    ID may be the beginning of a job's id, of 8 characters or more, if no other job's id has it.

    The recipient's id is shown by its last 4 digits; --json has the body as it was sent.
    """
    with open_producer() as producer:
        record = producer.get_job(producer.find_job_id(job_id))
    if as_json:
        print_json(record.as_json())
    else:
        print_job(record)


@click.command(epilog=examples("stats", "stats --json"))
@json_option
def stats(as_json: bool) -> None:
    """Count jobs by state and page, and list paused pages.

    Says if no worker runs, and since when.
    """
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        states = ledger.lookup.count_states()
        waiting = ledger.lookup.waiting_by_page()
        pauses = ledger.lookup.pauses()
        swept_seconds_ago = ledger.lookup.seconds_since_sweep()
    if as_json:
        print_json(
            {
                "states": {state.value: count for state, count in states.items()},
                "waiting_by_page": waiting,
                "paused": [
                    {
                        "page_id": pause.page_id,
                        "reason": pause.reason,
                        "error_code": pause.error_code,
                        "until": iso_utc(from_stored(pause.until_ms)),
                    }
                    for pause in pauses
                ],
                "seconds_since_sweep": swept_seconds_ago,
                "redis": address(settings.redis_url),
            }
        )
        return
    click.echo(f"Redis at {address(settings.redis_url)}, namespace {settings.namespace}")
    if swept_seconds_ago is None or swept_seconds_ago > _WORKERS_GONE_SECONDS:
        click.secho(
            f"no worker runs{_since(swept_seconds_ago)}; start one: {NAME} worker", fg="red"
        )
    click.echo()
    count = Column("jobs", right=True)
    print_table([Column("state"), count], [[state_cell(s), str(n)] for s, n in states.items()])
    if waiting:
        click.echo()
        print_table(
            [Column("waiting on page"), count], [[page, str(n)] for page, n in waiting.items()]
        )
    if pauses:
        click.echo()
        print_table(PAUSE_COLUMNS, pause_rows(pauses, datetime.now(timezone.utc)))


def _since(seconds_ago: float | None) -> str:
    if seconds_ago is None:
        return ""
    return f", since {local(datetime.now(timezone.utc) - timedelta(seconds=seconds_ago))}"
