"""`pause`: pause a page or all pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import click

from ...ledger import ALL_PAGES, MANUAL, Ledger, Pause
from ...schemas import Settings, from_stored, iso_utc
from ..input.environment import open_ledger
from ..input.options import DURATION, examples, json_option, page_or_all, reason_option
from ..output.printing import NAME, jobs, print_json, print_notice, shown
from ..output.times import local


@click.command(
    epilog=examples(
        "pause 500725830264749 --reason 'wrong price'",
        "pause 500725830264749 --for 2h",
        "pause --all",
    )
)
@page_or_all("Pause all pages, in addition to pauses of single pages.")
@reason_option
@click.option(
    "--for",
    "for_seconds",
    type=DURATION,
    help="Duration of the pause, for example 30m, 2h or 1d.  [default: until it is resumed]",
)
@json_option
def pause(*, page_id: str, reason: str, for_seconds: float | None, as_json: bool) -> None:
    """Pause PAGE until it is resumed, or for a duration.

    Takes effect at once in every worker, for any number of waiting jobs, and survives restarts.
    Calls in flight end normally. Waiting jobs spend no attempts, but fail when their deadlines
    pass.
    """
    with open_ledger(Settings.from_environment()) as ledger:
        before = find_manual_pause(ledger, page_id)
        if page_id == ALL_PAGES:
            ledger.pause_all(via="cli", reason=reason, for_seconds=for_seconds)
            waiting = sum(ledger.reader.waiting_by_page(limit=None).values())
        else:
            waiting = ledger.pause_page(page_id, via="cli", reason=reason, for_seconds=for_seconds)
    until = None
    if for_seconds is not None:
        until = datetime.now(timezone.utc) + timedelta(seconds=for_seconds)
    if as_json:
        print_json({"page_id": page_id, "until": iso_utc(until), "waiting": waiting})
        return
    if before is not None:
        note = f": {shown(before.note)}" if before.note else ""
        print_notice(
            f"this replaces the pause by {shown(before.by)} since "
            f"{local(from_stored(before.since_ms))}{note}"
        )
    name, argument = (
        ("every page", "--all") if page_id == ALL_PAGES else (f"page {page_id}", page_id)
    )
    end = f"until {local(until)}" if until else f"until it is resumed: {NAME} resume {argument}"
    what = "it has no waiting jobs"
    if waiting:
        what = f"{jobs(waiting)} {'waits' if waiting == 1 else 'wait'}"
    click.echo(f"{name} is paused {end}; {what}")


def find_manual_pause(ledger: Ledger, page_id: str) -> Pause | None:
    """Return the operator's pause of a page (or `ALL_PAGES`), or None if there is none."""
    found = ledger.reader.pauses_of(page_id)
    return next((p for p in found if p.page_id == page_id and p.reason == MANUAL), None)
