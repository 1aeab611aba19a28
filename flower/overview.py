"""Prepare the ledger's data for the Overview. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from ..ledger import ALL_PAGES, APP_THROTTLED, MANUAL, Campaign, Minute, PageRate, Pause
from ..schemas import State
from .chart import Bar, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCard:
    """One page: its waiting jobs, its rate, and its pauses.

    Attributes:
        rate: messages per second; 0 means no limit.
        has_own_rate: whether an operator set it.
        seconds_left: time until its waiting jobs are sent at this rate; None if unknown.
        pauses: an operator's pause first.
    """

    page_id: str
    waiting: int
    rate: float
    has_own_rate: bool
    pauses: Sequence[Pause]
    seconds_left: float | None

    @property
    def is_paused_by_operator(self) -> bool:
        """Whether an operator has paused it."""
        return any(pause.reason == MANUAL for pause in self.pauses)


def page_cards(
    waiting: Mapping[str, int],
    pauses: Sequence[Pause],
    rates: Sequence[PageRate],
    *,
    default_rate: float,
) -> list[PageCard]:
    """Return pages with waiting jobs or pauses: paused pages first, then the longest lanes."""
    # The other pauses apply to all pages, or to all pages of a token.
    of_pages = [p for p in pauses if p.page_id != ALL_PAGES and p.reason != APP_THROTTLED]
    by_page: dict[str, list[Pause]] = {}
    for pause in sorted(of_pages, key=lambda pause: pause.reason != MANUAL):
        by_page.setdefault(pause.page_id, []).append(pause)
    counts = {pause.page_id: pause.waiting for pause in of_pages} | dict(waiting)
    own = {rate.page_id: rate for rate in rates}
    cards = []
    for page_id, count in counts.items():
        rate = own[page_id].rate if page_id in own else default_rate
        paused = by_page.get(page_id, [])
        cards.append(
            PageCard(
                page_id=page_id,
                waiting=count,
                rate=rate,
                has_own_rate=page_id in own,
                pauses=paused,
                seconds_left=None if paused or not rate else count / rate,
            )
        )
    return sorted(cards, key=lambda card: (not card.pauses, -card.waiting, card.page_id))


def throughput_series(minutes: Sequence[Minute]) -> list[Series]:
    """Return the series of the chart of the last hour."""
    return [
        Series(name="sent", counts=[minute.sent for minute in minutes]),
        Series(name="failed", counts=[minute.failed for minute in minutes]),
    ]


def throughput_bars(minutes: Sequence[Minute], addresses: Sequence[str]) -> list[Bar]:
    """Return one bar per minute; `addresses` are the URLs of their links."""
    return [
        Bar(
            since=minute.at,
            until=minute.at + timedelta(minutes=1),
            total=minute.sent + minute.failed,
            address=address,
        )
        for minute, address in zip(minutes, addresses, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of a progress bar: its name and count, and its start and width in percent."""

    name: str
    count: int
    begins: float
    width: float


def progress(campaign: Campaign) -> list[Share]:
    """Return the parts of a campaign's progress bar: sent, failed and canceled rows."""
    rows = max(1, campaign.rows)
    shares = []
    begins = 0.0
    for state in (State.SENT, State.FAILED, State.CANCELLED):
        count = campaign.states[state]
        width = min(100.0 - begins, 100 * count / rows)
        shares.append(Share(name=state.label, count=count, begins=begins, width=width))
        begins += width
    return shares


#: Bootstrap's color of a campaign's badge, if it is not the default.
CONDITION_COLORS = {"running": "info", "held": "warning", "finished": "success"}


def condition(campaign: Campaign) -> str:
    """Return the condition of a campaign in one word."""
    if campaign.finished_at is not None:
        return "canceled" if campaign.canceled else "finished"
    if campaign.canceled:
        return "being canceled"
    if campaign.held:
        return "held"
    return "running" if campaign.started_at is not None else "waiting"
