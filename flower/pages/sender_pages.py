"""`/pages/<page id>`: one Facebook page; pause it, resume it, and set its rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tornado.web import HTTPError, authenticated

from ...ledger import ALL_PAGES, MANUAL, Lifted, PageRate, Pause
from ...schemas import check_page_id, rate_problem
from ..site import Site
from .handler import PageHandler

#: The message after an action, by the parameter `done` of the redirect.
CONTROLS_DONE: Mapping[str, str] = {
    "paused": "Paused: waiting messages stay queued, and calls in flight end normally.",
    "resumed": "Resumed.",
    "probe": "The page’s next message is sent now. If it succeeds, the others are sent too.",
    "was-not-paused": "There was no pause to end.",
    "rate-set": "The rate is set; all workers use it within a second.",
}
_RESUMED = {
    Lifted.MANUAL: "resumed",
    Lifted.AUTOMATIC: "probe",
    Lifted.NOTHING: "was-not-paused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderPage:
    """One page: its waiting jobs, its pauses, and its own rate, if set."""

    page_id: str
    waiting: int
    pauses: list[Pause]
    rate: PageRate | None


class SenderPagesHandler(PageHandler):
    """Redirects to the page whose id was entered on the Overview."""

    @authenticated
    async def get(self) -> None:
        page_id = self.text_argument("page_id").strip()
        name = ("sender-page", page_id) if page_id else ("overview",)
        self.redirect(self.reverse_url(*name))


class SenderPageHandler(PageHandler):
    """One page with its controls."""

    @authenticated
    async def get(self, page_id: str) -> None:
        page_id = await self.ask(check_page_id, page_id)
        page = await self.ask(_read_page, self.site, page_id)
        settings = self.site.settings
        rate = page.rate.rate if page.rate else settings.page_rate
        burst = page.rate.burst if page.rate else settings.page_burst
        self.render(
            "failures_page.html",
            burst=burst,
            done=CONTROLS_DONE.get(self.text_argument("done"), ""),
            has_manual_pause=any(pause.reason == MANUAL for pause in page.pauses),
            page=page,
            rate=rate,
            rate_problem=rate_problem(rate, burst),
            settings=settings,
        )


class PageControlHandler(PageHandler):
    """A POST pauses or resumes a page (all pages without a `page_id`), or sets its rate."""

    @authenticated
    async def post(self) -> None:
        self.forbid_if_read_only()
        page_id = self.text_argument("page_id").strip()
        done = await self._act(self.text_argument("action"), page_id)
        if self.text_argument("back") == "page":
            self.redirect(f"{self.reverse_url('sender-page', page_id)}?done={done}")
        else:
            self.redirect(f"{self.reverse_url('overview')}?done={done}#page-{page_id or 'all'}")

    async def _act(self, action: str, page_id: str) -> str:
        ledger = self.site.ledger
        who: dict[str, Any] = {"by": self.operator, "via": "flower"}
        if action == "pause":
            minutes = self.text_argument("minutes")
            who["reason"] = self.text_argument("reason").strip()
            who["for_seconds"] = 60 * _number("minutes", minutes) if minutes else None
            if page_id:
                await self.ask(ledger.pause_page, page_id, **who)
            else:
                await self.ask(ledger.pause_all, **who)
            return "paused"
        if action == "resume":
            if page_id:
                return _RESUMED[await self.ask(ledger.resume_page, page_id, **who)]
            return "resumed" if await self.ask(ledger.resume_all, **who) else "was-not-paused"
        if action == "rate":
            rate = _number("rate", self.text_argument("rate"))
            burst = self.text_argument("burst")
            await self.ask(ledger.set_rate, page_id, rate, _burst(burst) if burst else None, **who)
            return "rate-set"
        if action == "default-rate":
            await self.ask(ledger.clear_rate, page_id, **who)
            return "rate-set"
        raise HTTPError(400, f"There is no action {action!r}.")


def _read_page(site: Site, page_id: str) -> SenderPage:
    reader = site.ledger.reader
    pauses = reader.pauses_of(page_id)
    return SenderPage(
        page_id=page_id,
        waiting=reader.count_waiting([page_id])[page_id],
        pauses=[pause for pause in pauses if pause.page_id != ALL_PAGES],
        rate=next((rate for rate in reader.rates() if rate.page_id == page_id), None),
    )


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise HTTPError(400, f"{name}: Must be a number.")
    return number


def _burst(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise HTTPError(400, "burst: Must be a whole number of messages.") from None
