"""`/overview`: throughput, waiting jobs, pauses and failures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tornado.web import authenticated

from ...ledger import ALL_PAGES, APP_THROTTLED, Campaign, JobPage, Ledger, Minute, PageRate, Pause
from ...ledger import JobFilter as Filter
from ...schemas import State, iso_utc
from .. import overview
from ..chart import draw
from .handler import PageHandler
from .sender_pages import CONTROLS_DONE

#: Maximum number of cards, campaigns and failures on the page.
_PAGES, _CAMPAIGNS, _FAILURES = 24, 8, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """The page's data, read from the ledger in one call."""

    states: dict[State, int]
    minutes: list[Minute]
    waiting: dict[str, int]
    pauses: list[Pause]
    rates: list[PageRate]
    campaigns: list[Campaign]
    failures: JobPage
    swept_seconds: float | None

    @property
    def pause_of_all(self) -> Pause | None:
        return next((pause for pause in self.pauses if pause.page_id == ALL_PAGES), None)

    @property
    def pauses_of_tokens(self) -> list[Pause]:
        return [pause for pause in self.pauses if pause.reason == APP_THROTTLED]


def _read(ledger: Ledger) -> _Seen:
    reader = ledger.reader
    return _Seen(
        states=reader.count_states(),
        minutes=reader.throughput(),
        waiting=reader.waiting_by_page(),
        pauses=reader.pauses(),
        rates=reader.rates(),
        campaigns=reader.campaigns(limit=_CAMPAIGNS),
        failures=reader.failed_page(Filter(), limit=_FAILURES),
        swept_seconds=reader.seconds_since_sweep(),
    )


class LivePageHandler(PageHandler):
    """The base of pages with current data. The script updates them every few seconds."""

    def get_template_namespace(self) -> dict[str, Any]:
        return super().get_template_namespace() | {
            "State": State,
            "condition": overview.condition,
            "condition_colors": overview.CONDITION_COLORS,
            "progress": overview.progress,
        }


class OverviewHandler(LivePageHandler):
    """The Overview."""

    active_tab = "overview"

    async def prepare(self) -> None:
        """Omit the banner of the pause of all pages: the Overview has its own, which is updated."""

    @authenticated
    async def get(self) -> None:
        seen = await self.ask(_read, self.site.ledger)
        failures = self.reverse_url("failures")
        bars = overview.throughput_bars(
            seen.minutes,
            [f"{failures}?since={iso_utc(minute.at)}" for minute in seen.minutes],
        )
        series = overview.throughput_series(seen.minutes)
        cards = overview.page_cards(
            seen.waiting,
            seen.pauses,
            seen.rates,
            default_rate=self.site.settings.page_rate,
        )
        self.render(
            "overview.html",
            bars=bars,
            cards=cards[:_PAGES],
            cards_left_out=max(0, len(cards) - _PAGES),
            chart=draw(series, bars, title="Messages per minute", noun="messages"),
            done=CONTROLS_DONE.get(self.text_argument("done")),
            seen=seen,
            series=series,
            workers=_workers(self.application),
        )


class HomeHandler(PageHandler):
    """Redirects from `/` to the Overview. Flower's home page is also at `/workers`."""

    @authenticated
    async def get(self) -> None:
        self.redirect(self.reverse_url("overview"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A Celery worker, known from its heartbeats."""

    name: str
    is_alive: bool
    heard_seconds: float | None


def _workers(application: Any) -> Sequence[_Worker]:
    now = time.time()
    found = []
    for name, worker in sorted(application.events.state.workers.items()):
        heard = max(worker.heartbeats, default=None)
        found.append(
            _Worker(
                name=name,
                is_alive=bool(worker.alive),
                heard_seconds=None if heard is None else max(0.0, now - heard),
            )
        )
    return found
