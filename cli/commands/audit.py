"""`audit`: list the actions of operators."""

from __future__ import annotations

from datetime import datetime

import click

from ...ledger import ALL_PAGES, AUDIT_DAYS, AuditEntry
from ...schemas import Settings
from ..input.environment import open_ledger
from ..input.options import examples, json_option, limit_option, since_and_until
from ..output.printing import Column, json_text, print_list, shown
from ..output.times import local


@click.command(epilog=examples("audit", "audit --since 7d --limit 1000", "audit --json"))
@since_and_until("actions")
@limit_option
@json_option
def audit(*, since: datetime | None, until: datetime | None, limit: int, as_json: bool) -> None:
    """List the actions of operators, the latest first.

    Each entry shows the operator, the time, the interface, and the number of jobs or pages.
    Replays, cancellations, pauses, resumes, rates, holds and releases are recorded. They are
    kept for 90 days, up to 10,000 entries. With --json, prints one object per line.
    """
    with open_ledger(Settings.from_environment()) as ledger:
        entries = ledger.reader.audit(limit, since=since, until=until)
    print_list(
        entries,
        [
            Column("time"),
            Column("who"),
            Column("via", spare=2),
            Column("action"),
            Column("count", right=True),
            Column("of what", fit="wrap"),
            Column("reason", fit="wrap", spare=1),
        ],
        lambda entry: [
            local(entry.at),
            shown(entry.by),
            shown(entry.via),
            shown(entry.action),
            str(entry.count),
            shown(_subject(entry)),
            shown(entry.reason),
        ],
        as_json=as_json,
        if_none=f"no entries found; they are kept for {AUDIT_DAYS} days",
        limit=limit,
    )


def _subject(entry: AuditEntry) -> str:
    """Return the jobs or pages that an entry concerns, and its details."""
    parts = []
    if entry.page_id:
        parts.append("all pages" if entry.page_id == ALL_PAGES else f"page {entry.page_id}")
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
