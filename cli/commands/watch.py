"""`watch`: show the state of the queue at an interval."""

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
from ..output.watch_views import Show, Snapshot, json_view, line_view, live_view

#: Maximum number of pages and failures to show.
_PAGES, _FAILURES = 10, 8


@dataclass(slots=True)
class Watcher:
    """Reads the state of a ledger repeatedly."""

    ledger: Ledger
    campaign: str | None = None
    _at: datetime | None = None
    _latest_sent: str | None = None
    _ended: Mapping[State, int] = field(default_factory=dict)

    def read(self) -> Snapshot:
        """Return the current state.

        Raises:
            CampaignNotFound: there is no such campaign.
        """
        return self._read_queue() if self.campaign is None else self._read_campaign(self.campaign)

    def _read_campaign(self, name: str) -> Snapshot:
        reader = self.ledger.reader
        at, before, ended = from_ms(reader.now_ms()), self._at, self._ended
        campaign = reader.campaign(name)
        if campaign is None:
            raise CampaignNotFound(name)
        waiting = {page_id: page.waiting for page_id, page in campaign.pages.items()}
        busiest = sorted(filter(waiting.get, waiting), key=lambda page_id: -waiting[page_id])
        states = campaign.states
        snapshot = Snapshot(
            at=at,
            seconds=(at - before).total_seconds() if before else 0.0,
            # A replay decreases the number of failed jobs.
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
        return snapshot

    def _read_queue(self) -> Snapshot:
        reader = self.ledger.reader
        # Use the ledger's clock, because failure times are set by it.
        at, before = from_ms(reader.now_ms()), self._at
        sent, latest_sent = reader.sent_since(self._latest_sent)
        failed = 0
        # Times are stored in whole milliseconds. The clock may have been set back since.
        if before and (since := before + timedelta(milliseconds=1)) <= at:
            failed = reader.count_failed(JobFilter(since=since, until=at)) or 0
        snapshot = Snapshot(
            at=at,
            seconds=(at - before).total_seconds() if before else 0.0,
            sent=sent if before else 0,
            failed=failed,
            states=reader.count_states(),
            waiting=reader.waiting_by_page(_PAGES),
            pauses=reader.pauses(),
            failures=reader.failed_page(JobFilter(until=at), limit=_FAILURES).records,
        )
        # Updated last: if a read fails, the next read includes its changes.
        self._at, self._latest_sent = at, latest_sent
        return snapshot


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
    help="Interval between updates.",
)
@click.option("--campaign", metavar="NAME", help="Only the jobs of this campaign.")
@json_option
def watch(every_seconds: float, campaign: str | None, as_json: bool) -> None:
    """Watch throughput, waiting jobs, pauses and the latest failures.

    Stop it with Ctrl-C. On a terminal, updates the view in place; elsewhere prints one line each
    time, and one line for each failed job. With --json, prints one object each time.
    """
    settings = Settings.from_environment()
    with suppress(KeyboardInterrupt), open_ledger(settings) as ledger:
        watcher = Watcher(ledger, campaign)
        # If the first read fails, raise the error instead of retrying.
        snapshot = watcher.read()
        title = f"Redis at {address(settings.redis_url)}, namespace {settings.namespace}"
        if campaign is not None:
            title = f"campaign {campaign}; {title}"
        view = (
            json_view()
            if as_json
            else (live_view(title, settings.language) or line_view(settings.language))
        )
        with view as show:
            show(snapshot, "")
            _refresh(watcher, snapshot, show, every_seconds)


def _refresh(watcher: Watcher, snapshot: Snapshot, show: Show, every_seconds: float) -> None:
    next_read_at = time.monotonic()
    while True:
        now = time.monotonic()
        # After a slow reply or Ctrl-Z, skip missed intervals.
        next_read_at = max(next_read_at + every_seconds, now)
        time.sleep(next_read_at - now)
        try:
            snapshot = watcher.read()
        except QueueUnavailable as error:
            show(snapshot, f"{error}; trying again")
        else:
            show(snapshot, "")
