"""Print campaigns as text: progress, failures, holds, and the estimated end."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ...ledger import Campaign, CampaignPage, Pause
from ...schemas import State
from ...schemas.error_codes import explain_any
from ...schemas.language import Language
from .pause_view import print_pauses
from .printing import STATE_STYLES, Cell, Column, print_facts, print_table, shown
from .times import duration_text, local

#: The columns of `_counts`.
_COUNTS = [Column(title, right=True) for title in ("rows", "done", "sent", "failed", "waiting")]
LIST_COLUMNS = [
    Column("campaign"),
    Column("state"),
    *_COUNTS,
    Column("rate", right=True, spare=2),
    Column("time left", spare=1),
    Column("started", spare=3),
]


def list_row(campaign: Campaign) -> list[str | Cell]:
    """Return the cells of a campaign for `LIST_COLUMNS`."""
    return [
        campaign.name,
        _state_cell(campaign),
        *_counts(campaign, campaign.rows, campaign.ended),
        f"{campaign.rate:.1f}/s",
        _time_left(campaign),
        local(campaign.started_at),
    ]


def progress_line(campaign: Campaign) -> str:
    """Return the campaign as one line."""
    parts = [
        f"{_state(campaign)}  {_share(campaign.ended, campaign.rows)} of {campaign.rows:,} rows",
        *(f"{state.value} {count:,}" for state, count in campaign.states.items() if count),
        f"{campaign.rate:.1f}/s",
    ]
    if left := _time_left(campaign):
        parts.append(f"{left} left")
    return "  ".join(parts)


def print_campaign(campaign: Campaign, pauses: Sequence[Pause], language: Language) -> None:
    """Print a campaign in detail, with the pauses of its pages."""
    print_facts(_facts(campaign), label_width=13)
    click.echo()
    count = Column("jobs", right=True)
    print_table(
        [Column("state"), count],
        [
            [Cell(state.value, STATE_STYLES[state]), f"{number:,}"]
            for state, number in campaign.states.items()
            if number
        ],
    )
    if campaign.errors:
        click.echo()
        print_table(
            [
                Column("error_code"),
                count,
                Column("meaning", fit="wrap"),
                Column("what to do", fit="wrap", spare=1),
            ],
            [
                [code, f"{number:,}", *explain_any(code, language)]
                for code, number in campaign.errors.items()
            ],
        )
    if campaign.pages:
        click.echo()
        rows = []
        for page_id, page in campaign.pages.items():
            row_count = sum(page.states.values())
            rows.append([shown(page_id), *_counts(page, row_count, row_count - page.waiting)])
        print_table([Column("page"), *_COUNTS], rows)
    if pauses:
        click.echo()
        print_pauses(pauses, language)


def _facts(campaign: Campaign) -> list[tuple[str, str]]:
    hold = campaign.hold
    held_by = f" (by {shown(hold.by)}, {local(hold.at)})" if hold else ""
    to_come = campaign.rows - campaign.enqueued
    announced = f", {to_come:,} not enqueued yet" if to_come else ""
    return [
        ("campaign", campaign.name),
        ("state", click.style(_state(campaign), fg=_style(campaign))),
        ("why", shown(campaign.reason) + held_by if campaign.held else ""),
        (
            "done",
            f"{_share(campaign.ended, campaign.rows)} ({campaign.ended:,} of {campaign.rows:,} "
            f"rows{announced})",
        ),
        ("rate", f"{campaign.rate:.1f}/s now, {campaign.average_rate:.1f}/s on average"),
        ("time left", _time_left(campaign)),
        ("started", local(campaign.started_at)),
        ("finished", local(campaign.finished_at)),
    ]


def _state(campaign: Campaign) -> str:
    if campaign.canceled:
        return "canceled"
    if campaign.finished_at is not None:
        return "finished"
    if campaign.held:
        return "held"
    if campaign.canary_left is not None:
        return "canary"
    return "running" if campaign.started_at is not None else "waiting"


def _style(campaign: Campaign) -> str:
    styles = {"canceled": "bright_black", "finished": "green", "held": "yellow"}
    return styles.get(_state(campaign), "blue")


def _state_cell(campaign: Campaign) -> Cell:
    return Cell(_state(campaign), _style(campaign))


def _counts(of: Campaign | CampaignPage, rows: int, ended: int) -> list[str]:
    return [
        f"{rows:,}",
        _share(ended, rows),
        f"{of.states[State.SENT]:,}",
        f"{of.states[State.FAILED]:,}",
        f"{of.waiting:,}",
    ]


def _share(part: int, whole: int) -> str:
    # Rounded down, so that 100% means all rows.
    return f"{part * 1000 // whole / 10:.1f}%" if whole else ""


def _time_left(campaign: Campaign) -> str:
    if campaign.finished_at is not None or campaign.eta_seconds is None:
        return ""
    return duration_text(campaign.eta_seconds)
