"""`stats`: count jobs by state and page, and list paused pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import click

from ...ledger.connection import address
from ...schemas import Settings, from_stored, iso_utc
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..output.pause_view import print_pauses
from ..output.printing import NAME, Column, print_json, print_table, state_cell
from ..output.times import local

#: Every worker sweeps once per second. A sweep may be late if the worker or Redis is busy.
_WORKERS_GONE_SECONDS = 10.0


@click.command(epilog=examples("stats", "stats --json"))
@json_option
def stats(as_json: bool) -> None:
    """Count jobs by state and page, and list paused pages.

    Prints a notice if no worker runs, and since when.
    """
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        states = ledger.reader.count_states()
        waiting = ledger.reader.waiting_by_page()
        pauses = ledger.reader.pauses()
        swept_seconds_ago = ledger.reader.seconds_since_sweep()
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
                        "since": iso_utc(from_stored(pause.since_ms)),
                        "by": pause.by,
                        "note": pause.note or None,
                        "waiting": pause.waiting,
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
        print_pauses(pauses, settings.language)


def _since(seconds_ago: float | None) -> str:
    if seconds_ago is None:
        return ""
    return f", since {local(datetime.now(timezone.utc) - timedelta(seconds=seconds_ago))}"
