"""`audit`: list the actions of operators."""

from __future__ import annotations

from datetime import datetime

import click

from ...ledger import AUDIT_DAYS, AuditEntry
from ...schemas import Settings
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..input.times import Moment, check_bounds
from ..output.printing import Column, json_text, print_json, print_notice, print_table, shown
from ..output.times import local


@click.command(epilog=examples("audit", "audit --since 7d --limit 1000", "audit --json"))
@click.option(
    "--since", type=Moment(), help="Only actions after this time: 30m, 2h, 1d, or a date and time."
)
@click.option(
    "--until",
    type=Moment(end_of_day=True),
    help="Only actions before this time. A date includes the whole day.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Maximum number of entries to list.",
)
@json_option
def audit(*, since: datetime | None, until: datetime | None, limit: int, as_json: bool) -> None:
    """List the actions of operators, the latest first.

    Each entry shows the operator, the time, the client, and the number of jobs or pages.
    Replays, cancellations, pauses, resumes, holds, releases and rate changes are recorded. They are
    kept for 90 days, up to 10,000 entries. With --json, prints one object per line.
    """
    check_bounds(since, until)
    with open_ledger(Settings.from_environment()) as ledger:
        entries = ledger.reader.audit(limit, since=since, until=until)
    if as_json:
        for entry in entries:
            print_json(entry.as_json())
        return
    if not entries:
        print_notice(f"no entries found; they are kept for {AUDIT_DAYS} days")
        return
    print_table(
        [
            Column("time"),
            Column("who"),
            Column("via", spare=2),
            Column("action"),
            Column("count", right=True),
            Column("of what", fit="wrap"),
            Column("reason", fit="wrap", spare=1),
        ],
        [
            [
                local(entry.at),
                shown(entry.by),
                shown(entry.via),
                shown(entry.action),
                str(entry.count),
                shown(_subject(entry)),
                shown(entry.reason),
            ]
            for entry in entries
        ],
    )
    if len(entries) == limit:
        print_notice(f"these are the latest {limit}; there may be more (--limit)")


def _subject(entry: AuditEntry) -> str:
    """Return the jobs or pages that an entry concerns, and its details."""
    parts = []
    if entry.page_id:
        parts.append(f"page {entry.page_id}")
    if entry.campaign:
        parts.append(f"campaign {entry.campaign}")
    for facts in (entry.filter or {}, entry.details):
        parts += [f"{name}={_short(value)}" for name, value in facts.items()]
    return ", ".join(parts)


def _short(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "|".join(value)
    return json_text(value)
