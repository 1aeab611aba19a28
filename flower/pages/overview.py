"""`/overview`: what is sent now, what waits and why; and pausing, resuming and pacing pages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tornado.web import HTTPError, authenticated

from ...ledger import ALL_PAGES, Campaign, JobPage, Ledger, Lifted, Minute, PageRate, Pause
from ...ledger import JobFilter as Filter
from ...schemas import InvalidRequest, State, iso_utc
from .. import overview
from ..chart import draw
from .handler import PageHandler

#: What a form did, as its redirect says it.
_DONE = {
    "paused": "Paused: waiting messages stay where they are, and calls in flight end normally.",
    "resumed": "Resumed.",
    "was-not-paused": "There was no pause to end.",
    "rate-set": "The rate is set; all workers use it within a second.",
}
#: Cards, campaigns and failures that the page shows.
_PAGES, _CAMPAIGNS, _FAILURES = 24, 8, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """All that the page shows, read from the ledger in one go."""

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


def _look(ledger: Ledger) -> _Seen:
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
    """A page about what happens now; its script fetches it again every few seconds."""

    def get_template_namespace(self) -> dict[str, Any]:
        return super().get_template_namespace() | {
            "State": State,
            "condition": overview.condition,
            "condition_colours": overview.CONDITION_COLOURS,
            "progress": overview.progress,
        }


class OverviewHandler(LivePageHandler):
    """The page itself."""

    @authenticated
    async def get(self) -> None:
        seen = await self.ask(_look, self.site.ledger)
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
            default_burst=self.site.settings.page_burst,
        )
        self.render(
            "overview.html",
            bars=bars,
            cards=cards[:_PAGES],
            cards_left_out=max(0, len(cards) - _PAGES),
            chart=draw(series, bars, title="Messages per minute", noun="messages"),
            done=_DONE.get(self.text_argument("done")),
            pause_until=overview.pause_until,
            seen=seen,
            series=series,
            workers=_workers(self.application),
        )


class PageControlHandler(PageHandler):
    """Forms of the Overview: pause, resume and pace one page, or pause and resume all."""

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        page_id = self.text_argument("page_id").strip()
        action = self.text_argument("action")
        try:
            done = await self._act(action, page_id)
        except InvalidRequest as error:
            raise HTTPError(400, str(error)) from None
        self.redirect(f"{self.reverse_url('overview')}?done={done}#page-{page_id or 'all'}")

    async def _act(self, action: str, page_id: str) -> str:
        ledger = self.site.ledger
        who: dict[str, Any] = {"by": self.operator, "via": "flower"}
        reason = self.text_argument("reason").strip()
        if action == "pause":
            seconds = _seconds(self.text_argument("minutes"))
            if page_id:
                await self.ask(
                    ledger.pause_page, page_id, reason=reason, for_seconds=seconds, **who
                )
            else:
                await self.ask(ledger.pause_all, reason=reason, for_seconds=seconds, **who)
            return "paused"
        if action == "resume":
            if not page_id:
                return "resumed" if await self.ask(ledger.resume_all, **who) else "was-not-paused"
            lifted = await self.ask(ledger.resume_page, page_id, **who)
            return "was-not-paused" if lifted is Lifted.NOTHING else "resumed"
        if action == "rate":
            await self.ask(ledger.set_rate, page_id, _rate(self.text_argument("rate")), **who)
            return "rate-set"
        if action == "default-rate":
            await self.ask(ledger.clear_rate, page_id, **who)
            return "rate-set"
        raise HTTPError(400, f"There is no action {action!r}.")


class HomeHandler(PageHandler):
    """`/`: leads to the Overview. Flower's own first page stays at `/workers`."""

    @authenticated
    async def get(self) -> None:
        self.redirect(self.reverse_url("overview"))


def _seconds(minutes: str) -> float | None:
    """Return how long a pause is to last; None if the form leaves that open."""
    if not minutes.strip():
        return None
    try:
        return 60 * float(minutes)
    except ValueError:
        raise HTTPError(400, f"minutes must be a number, not {minutes!r}.") from None


def _rate(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise HTTPError(
            400, f"The rate must be a number of messages a second, not {text!r}."
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Worker:
    """A Celery worker as its heartbeats show it."""

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
