"""`campaign`: show, hold, release or cancel a campaign."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from ...producer import Producer
from ...schemas import State
from ..input.environment import open_producer
from ..input.options import (
    check_can_confirm,
    confirm,
    examples,
    json_option,
    reason_option,
    yes_option,
)
from ..output.campaign_view import print_campaign, progress_line
from ..output.printing import NAME, is_terminal, jobs, print_json, progress_bar, shown

#: Interval of --watch.
_WATCH_EVERY_SECONDS = 1.0

_name = click.argument("name", metavar="NAME")


@click.group()
def campaign() -> None:
    """Show, hold, release or cancel a campaign."""


@campaign.command(
    epilog=examples(
        "campaign show tet-2026",
        "campaign show tet-2026 --watch",
        "campaign show tet-2026 --json | jq .errors",
    )
)
@_name
@click.option("--watch", is_flag=True, help="Refresh every second until the campaign has finished.")
@json_option
def show(name: str, watch: bool, as_json: bool) -> None:
    """Show a campaign's progress, failures and their causes, estimated end, and pages.

    With --watch, updates the view in place on a terminal; elsewhere prints one line per second.
    """
    with open_producer() as producer, suppress(KeyboardInterrupt):
        while not _print_campaign(producer, name, as_json=as_json, watch=watch) and watch:
            time.sleep(_WATCH_EVERY_SECONDS)


def _print_campaign(producer: Producer, name: str, *, as_json: bool, watch: bool) -> bool:
    """Print the campaign once; return whether it has finished."""
    found = producer.get_campaign(name)
    if as_json:
        print_json(found.as_json())
    elif watch and not is_terminal():
        click.echo(progress_line(found))
    else:
        waiting = [page_id for page_id, page in found.pages.items() if page.waiting]
        pauses = producer.find_pauses(waiting) if waiting else []
        if watch:
            click.clear()
        print_campaign(found, pauses, producer.settings.language)
    return found.finished_at is not None


@campaign.command(epilog=examples("campaign hold tet-2026 --reason 'wrong price'"))
@_name
@reason_option
@json_option
def hold(name: str, reason: str, as_json: bool) -> None:
    """Hold the jobs of a campaign until it is released.

    Takes effect at once in every worker, for any number of waiting jobs. Calls in flight end
    normally. Other messages of its pages are sent. Waiting jobs spend no attempts, but fail when
    their deadlines pass.
    """
    with open_producer() as producer:
        is_new = producer.hold_campaign(name, reason=reason, via="cli")
        found = producer.get_campaign(name)
    if as_json:
        print_json(found.as_json())
    elif is_new:
        click.echo(
            f"campaign {name} is held; waiting: {jobs(found.waiting)}; to release it: "
            f"{NAME} campaign release {name}"
        )
    else:
        click.echo(f"campaign {name} was already held: {shown(found.reason)}")


@campaign.command(epilog=examples("campaign release tet-2026"))
@_name
@json_option
def release(name: str, as_json: bool) -> None:
    """Send the jobs of a held campaign, or the jobs that wait for its canary."""
    with open_producer() as producer:
        was_held = producer.release_campaign(name, via="cli")
        found = producer.get_campaign(name)
    if as_json:
        print_json(found.as_json())
    elif was_held:
        click.echo(f"campaign {name} is released; to be sent: {jobs(found.waiting)}")
    else:
        click.echo(f"campaign {name} is not held; nothing was changed")


@campaign.command(epilog=examples("campaign cancel tet-2026", "campaign cancel tet-2026 --yes"))
@_name
@yes_option
@json_option
def cancel(name: str, yes: bool, as_json: bool) -> None:
    """Cancel a campaign permanently: no more of its jobs are sent.

    Takes effect at once in every worker, for any number of waiting jobs. The waiting jobs are then
    canceled in steps. If this command is interrupted, the workers cancel the rest. Calls in flight
    end normally.
    """
    check_can_confirm(given=yes, options="--yes")
    with open_producer() as producer:
        found = producer.get_campaign(name)
        to_cancel = found.waiting - found.states[State.SENDING]
        if not yes:
            question = f"Cancel campaign {name} permanently ({jobs(to_cancel)} not sent yet)?"
            confirm(question, "canceled")
        with progress_bar(to_cancel, "jobs") as advance:
            count = producer.cancel_campaign(
                name, progress=lambda done: advance(done, done), via="cli"
            )
        found = producer.get_campaign(name)
    if as_json:
        print_json(found.as_json())
    else:
        click.echo(f"campaign {name} is canceled: {jobs(count)} will not be sent")
