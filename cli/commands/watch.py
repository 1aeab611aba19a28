"""`watch`: what the queue does, again and again: on a terminal in place, elsewhere line by line."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import click

from ...ledger import JobFilter, Ledger
from ...ledger.connection import address
from ...schemas import CampaignNotFound, QueueUnavailable, Settings, State, from_ms
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..output.watch_views import Glance, Show, json_view, line_view, live_view

#: Pages and failures that are shown, at most.
_PAGES, _FAILURES = 10, 8


@dataclass(slots=True)
class Watcher:
    """Looks at a ledger again and again."""

    ledger: Ledger
    campaign: str | None = None
    _at: datetime | None = None
    _latest_sent: str | None = None
    _ended: Mapping[State, int] = field(default_factory=dict)

    def look(self) -> Glance:
        """Return what there is now.

        Raises:
            CampaignNotFound: there is no such campaign.
        """
        return self._look() if self.campaign is None else self._look_at_campaign(self.campaign)

    def _look_at_campaign(self, name: str) -> Glance:
        reader = self.ledger.reader
        at, before, ended = from_ms(reader.now_ms()), self._at, self._ended
        campaign = reader.campaign(name)
        if campaign is None:
            raise CampaignNotFound(name)
        waiting = {page_id: page.waiting for page_id, page in campaign.pages.items()}
        busiest = sorted(filter(waiting.get, waiting), key=lambda page_id: -waiting[page_id])
        states = campaign.states
        glance = Glance(
            at=at,
            seconds=(at - before).total_seconds() if before else 0.0,
            # A replay takes failed jobs back.
            sent=states[State.SENT] - ended[State.SENT] if before else 0,
            failed=max(0, states[State.FAILED] - ended[State.FAILED]) if before else 0,
            states=states,
            waiting={page_id: waiting[page_id] for page_id in busiest[:_PAGES]},
            pauses=reader.pauses_of(*busiest),
            failures=reader.failed_page(
                JobFilter(campaigns=(name,), until=at), limit=_FAILURES
            ).records,
        )
        self._at, self._ended = at, states
        return glance

    def _look(self) -> Glance:
        reader = self.ledger.reader
        # By the ledger's clock, which jobs fail by.
        at, before = from_ms(reader.now_ms()), self._at
        sent, latest_sent = reader.sent_since(self._latest_sent)
        failed = 0
        # Times are stored in whole milliseconds. The clock may have been set back since.
        if before and (since := before + timedelta(milliseconds=1)) <= at:
            failed = reader.count_failed(JobFilter(since=since, until=at)) or 0
        glance = Glance(
            at=at,
            seconds=(at - before).total_seconds() if before else 0.0,
            sent=sent if before else 0,
            failed=failed,
            states=reader.count_states(),
            waiting=reader.waiting_by_page(_PAGES),
            pauses=reader.pauses(),
            failures=reader.failed_page(JobFilter(until=at), limit=_FAILURES).records,
        )
        # Only now: what a look that broke off has seen counts in the next one.
        self._at, self._latest_sent = at, latest_sent
        return glance


@click.command(
    epilog=examples(
        "watch", "watch --campaign tet-2026", "watch --every 10 | tee queue.log", "watch --json"
    )
)
@click.option(
    "--every",
    "every_seconds",
    type=click.FloatRange(min=0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--campaign", metavar="NAME", help="Only the jobs of this campaign.")
@json_option
def watch(every_seconds: float, campaign: str | None, as_json: bool) -> None:
    """Watch throughput, what waits and why, and the latest failures.

    Ctrl-C ends it. On a terminal the view stays in place; elsewhere there is a line each time, and
    one for each job that has failed. With --json, one object each time.
    """
    settings = Settings.from_environment()
    with suppress(KeyboardInterrupt), open_ledger(settings) as ledger:
        watcher = Watcher(ledger, campaign)
        # Without Redis from the start, there is nothing to watch.
        glance = watcher.look()
        title = f"Redis at {address(settings.redis_url)}, namespace {settings.namespace}"
        if campaign is not None:
            title = f"campaign {campaign}; {title}"
        view = (
            json_view()
            if as_json
            else (live_view(title, settings.language) or line_view(settings.language))
        )
        with view as show:
            show(glance, "")
            _go_on(watcher, glance, show, every_seconds)


def _go_on(watcher: Watcher, glance: Glance, show: Show, every_seconds: float) -> None:
    look_at = time.monotonic()
    while True:
        now = time.monotonic()
        # A late look, after a slow answer or Ctrl-Z, is not caught up on.
        look_at = max(look_at + every_seconds, now)
        time.sleep(look_at - now)
        try:
            glance = watcher.look()
        except QueueUnavailable as error:
            show(glance, f"{error}; trying again")
        else:
            show(glance, "")
