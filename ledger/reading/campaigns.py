"""Campaigns: their progress, failures, holds and remaining time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from ...schemas import State, iso_utc
from ..job_hash import to_int, to_object, to_time
from .counts import most_first
from .namespace import CHUNK, Namespace, chunks
from .pauses import pauses_of, rates

#: States in which a job waits or is being sent.
WAITING = (State.SCHEDULED, State.QUEUED, State.SENDING, State.RETRYING)
#: Same value as in lua/shared/counts.lua.
_RATE_PERIOD_MS = 10_000
#: The rate is measured over this many periods and the current one.
_RATE_PERIODS = 2
#: Number of campaigns with rules that are read at once.
_WATCHED = 100
#: Number of entries of a hash that are read in one step.
_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The reason, author and time of a campaign's hold."""

    reason: str
    by: str
    at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignPage:
    """The state of a campaign on one page."""

    states: dict[State, int]
    errors: dict[str, int]

    @property
    def waiting(self) -> int:
        """Number of its jobs that have not ended."""
        return sum(self.states[state] for state in WAITING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A campaign. Its counts are kept for `CAMPAIGN_TTL_SECONDS`, longer than its jobs.

    Attributes:
        rows: number of enqueued or announced rows, whichever is larger.
        states: number of jobs that are in each state, or ended in it.
        errors: number of jobs that failed with each error code, the most frequent first.
        pages: states and errors of each page. Errors and pages are empty in a list of campaigns.
        hold: why it is held; None if it is not.
        canary_left: number of canary rows that are not sent yet; None: no canary.
        canceled: whether it is canceled.
        rate, average_rate: jobs sent or failed per second, in the latest half minute and since it
            started.
        eta_seconds: time until every row has ended; None if it is unknown, for example while the
            campaign is held.
        started_at: when its first job was claimed.
        finished_at: when its last row ended; None if it is not finished.
    """

    name: str
    rows: int
    states: dict[State, int]
    errors: dict[str, int] = field(default_factory=dict)
    pages: dict[str, CampaignPage] = field(default_factory=dict)
    hold: Hold | None = None
    canary_left: int | None = None
    canceled: bool = False
    rate: float = 0.0
    average_rate: float = 0.0
    eta_seconds: float | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def enqueued(self) -> int:
        """Number of rows that are enqueued."""
        return sum(self.states.values())

    @property
    def waiting(self) -> int:
        """Number of jobs that have not ended."""
        return sum(self.states[state] for state in WAITING)

    @property
    def ended(self) -> int:
        """Number of jobs that have ended."""
        return self.enqueued - self.waiting

    @property
    def held(self) -> bool:
        """Whether its jobs wait for a release."""
        return self.hold is not None or self.canary_left == 0

    @property
    def reason(self) -> str | None:
        """The reason of its hold; None if it is not held."""
        if self.hold is not None:
            return self.hold.reason or "held"
        if self.canary_left == 0:
            return "the canary was sent; the other rows wait for a release"
        return None

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `campaign show --json` prints."""
        return {
            "name": self.name,
            "rows": self.rows,
            "states": _states_json(self.states),
            "errors": self.errors,
            "pages": {
                page_id: {
                    "rows": sum(page.states.values()),
                    "states": _states_json(page.states),
                    "errors": page.errors,
                }
                for page_id, page in self.pages.items()
            },
            "held": self.held,
            "reason": self.reason,
            "canceled": self.canceled,
            "rate": round(self.rate, 3),
            "average_rate": round(self.average_rate, 3),
            "eta_seconds": None if self.eta_seconds is None else round(self.eta_seconds, 1),
            "created_at": iso_utc(self.created_at),
            "started_at": iso_utc(self.started_at),
            "finished_at": iso_utc(self.finished_at),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedCampaign:
    """A campaign with rules for an automatic hold or release.

    Attributes:
        read_at_ms: when this was read, by the ledger's clock.
        canary: number of rows to send before the others wait for a release; None: no canary.
        canary_max_failures: maximum share of the canary that may fail for an automatic release.
        hold_at: the campaign is held if more than this share of its latest outcomes are failures.
        outcomes, failures: number of the latest outcomes that are kept, and of failures in them.
    """

    campaign: Campaign
    read_at_ms: int
    canary: int | None
    canary_max_failures: float | None
    hold_at: float | None
    outcomes: int
    failures: int


def watched_campaigns(namespace: Namespace, cursor: int) -> tuple[list[WatchedCampaign], int]:
    """Return some of the campaigns with rules, and the cursor to continue at; 0 at the end."""
    cursor, rules = namespace.client.hscan(namespace.key("campaign_rules"), cursor, count=_WATCHED)
    if not rules:
        return [], int(cursor)
    now_ms = namespace.now_ms()
    found = campaigns(namespace, list(rules))
    pipeline = namespace.pipeline()
    for campaign in found:
        pipeline.lrange(namespace.key(f"recent:{campaign.name}"), 0, -1)
    recent = pipeline.execute()
    return [
        _watched(campaign, now_ms, rules[campaign.name], outcomes)
        for campaign, outcomes in zip(found, recent, strict=True)
    ], int(cursor)


def _watched(
    campaign: Campaign, now_ms: int, text: str, outcomes: Sequence[str]
) -> WatchedCampaign:
    rules = to_object(text)
    return WatchedCampaign(
        campaign=campaign,
        read_at_ms=now_ms,
        canary=to_int(rules.get("canary")),
        canary_max_failures=_share(rules.get("canary_max_failures")),
        hold_at=_share(rules.get("hold_at")),
        outcomes=len(outcomes),
        failures=outcomes.count("1"),
    )


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else None


def campaigns(
    namespace: Namespace, names: Sequence[str] | None = None, *, limit: int | None = None
) -> list[Campaign]:
    """Return campaigns without errors and pages, the last changed first."""
    if names is None:
        last = -1 if limit is None else limit - 1
        names = namespace.client.zrevrange(namespace.key("campaigns"), 0, last)
    now_ms = namespace.now_ms()
    found = []
    for some in chunks(names, CHUNK):
        pipeline = namespace.pipeline()
        for name in some:
            pipeline.hgetall(namespace.key(f"campaign:{name}"))
            pipeline.hgetall(namespace.key(f"campaign_rate:{name}"))
        for hash_name in ("held_campaigns", "canceled_campaigns", "canaries"):
            pipeline.hmget(namespace.key(hash_name), some)
        *answers, held, canceled, canaries = pipeline.execute()
        for i, name in enumerate(some):
            totals, periods = answers[2 * i], answers[2 * i + 1]
            if totals:
                marks = (held[i], canceled[i], canaries[i])
                found.append(_campaign(name, now_ms, totals, periods, *marks))
    return found


def campaign(namespace: Namespace, name: str, page_rate: float) -> Campaign | None:
    """Return a campaign with its errors and pages, or None if there is none.

    `page_rate` is the rate of pages without their own rate (messages per second; 0 means no limit).
    """
    found = campaigns(namespace, [name])
    if not found:
        return None
    pages: dict[str, CampaignPage] = {}

    def page_of(page_id: str) -> CampaignPage:
        return pages.setdefault(page_id, CampaignPage(states=_states({}), errors={}))

    for field_name, count in _entries(namespace, f"campaign_pages:{name}"):
        page_id, _, state = field_name.partition("|")
        if state in State._value2member_map_:
            page_of(page_id).states[State(state)] = count
    errors: dict[str, int] = {}
    for field_name, count in _entries(namespace, f"campaign_errors:{name}"):
        page_id, is_of_page, error_code = field_name.partition("|")
        if not is_of_page:
            errors[field_name] = count
        elif count:
            page_of(page_id).errors[error_code] = count
    complete = replace(
        found[0],
        errors=most_first(errors),
        pages={page_id: pages[page_id] for page_id in sorted(pages)},
    )
    waiting = [page_id for page_id, page in complete.pages.items() if page.waiting]
    own_rates = {rate.page_id: rate.rate for rate in rates(namespace)}
    page_rates = {page_id: own_rates.get(page_id, page_rate) for page_id in waiting}
    return replace(
        complete,
        eta_seconds=eta_seconds(complete, page_rates, _pause_seconds(namespace, waiting)),
    )


def _pause_seconds(namespace: Namespace, page_ids: Sequence[str]) -> dict[str, float]:
    """Return how long each page stays paused; infinite if an operator must resume it."""
    now_ms = namespace.now_ms()
    seconds = dict.fromkeys(page_ids, 0.0)
    for pause in pauses_of(namespace, *page_ids):
        left = math.inf if pause.until_ms is None else (pause.until_ms - now_ms) / 1000
        # A pause of all pages or of a token applies to several pages.
        for page_id in [pause.page_id] if pause.page_id in seconds else page_ids:
            seconds[page_id] = max(seconds[page_id], left)
    return seconds


def eta_seconds(
    campaign: Campaign, page_rates: Mapping[str, float], pause_seconds: Mapping[str, float]
) -> float | None:
    """Return the time until every row has ended; None if it is unknown, such as during a hold.

    It is computed from the rate of the latest half minute, and is at least the time that each page
    needs for its rows. Scheduled times of jobs and other campaigns on the pages are ignored.

    Args:
        page_rates: messages per second of pages; 0 means no limit.
        pause_seconds: how long pages stay paused; infinite if that is unknown.
    """
    left = campaign.rows - campaign.ended
    if left <= 0:
        return 0.0
    if campaign.held or campaign.canceled:
        return None
    longest = 0.0
    for page_id, page in campaign.pages.items():
        if page.waiting:
            rate = page_rates.get(page_id, 0.0)
            sending = page.waiting / rate if rate > 0 else 0.0
            longest = max(longest, pause_seconds.get(page_id, 0.0) + sending)
    if campaign.rate > 0:
        longest = max(longest, left / campaign.rate)
    return longest if 0 < longest < math.inf else None


def _entries(namespace: Namespace, name: str) -> Iterator[tuple[str, int]]:
    for field_name, text in namespace.client.hscan_iter(namespace.key(name), count=_ENTRIES):
        yield field_name, max(0, to_int(text) or 0)


def _campaign(
    name: str,
    now_ms: int,
    totals: Mapping[str, str],
    periods: Mapping[str, str],
    held: str | None,
    canceled: str | None,
    canary: str | None,
) -> Campaign:
    states = _states(totals)
    enqueued = sum(states.values())
    waiting = sum(states[state] for state in WAITING)
    rows = max(to_int(totals.get("rows")) or 0, enqueued)
    started_ms, ended_ms = to_int(totals.get("started_at")), to_int(totals.get("ended_at"))
    # A canceled campaign gets no more rows.
    is_finished = enqueued > 0 and not waiting and (enqueued == rows or canceled is not None)
    rate = _rate(periods, now_ms, started_ms)
    listed = Campaign(
        name=name,
        rows=rows,
        states=states,
        hold=_hold(held),
        canary_left=None if canary is None else max(0, to_int(canary) or 0),
        canceled=canceled is not None,
        rate=rate,
        average_rate=_average_rate(states, started_ms, ended_ms if is_finished else now_ms),
        created_at=to_time(totals.get("created_at")),
        started_at=to_time(started_ms),
        finished_at=to_time(ended_ms) if is_finished else None,
    )
    return replace(listed, eta_seconds=eta_seconds(listed, {}, {}))


def _rate(periods: Mapping[str, str], now_ms: int, started_ms: int | None) -> float:
    """Return jobs per second in the latest periods, or since the start if it was later."""
    current = now_ms // _RATE_PERIOD_MS
    first = current - _RATE_PERIODS
    jobs = sum(
        max(0, to_int(count) or 0)
        for number, count in periods.items()
        if first <= (to_int(number) or 0) <= current
    )
    since_ms = max(first * _RATE_PERIOD_MS, started_ms or 0)
    return jobs / max(1.0, (now_ms - since_ms) / 1000)


def _average_rate(states: Mapping[State, int], since_ms: int | None, to_ms: int | None) -> float:
    if since_ms is None or to_ms is None:
        return 0.0
    return (states[State.SENT] + states[State.FAILED]) / max(1.0, (to_ms - since_ms) / 1000)


def _states(fields: Mapping[str, str]) -> dict[State, int]:
    return {state: max(0, to_int(fields.get(state.value)) or 0) for state in State}


def _states_json(states: Mapping[State, int]) -> dict[str, int]:
    return {state.value: count for state, count in states.items()}


def _hold(text: str | None) -> Hold | None:
    if text is None:
        return None
    found = to_object(text)
    return Hold(
        reason=str(found.get("reason") or ""),
        by=str(found.get("by") or ""),
        at=to_time(found.get("at_ms")),
    )
