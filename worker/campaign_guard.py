"""Decide whether to hold a campaign automatically, or to release its canary. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ..ledger import WatchedCampaign
from ..schemas import State

#: Minimum number of ended jobs. With fewer jobs, the share of failures is not meaningful.
MIN_OUTCOMES = 20


@dataclass(frozen=True, slots=True)
class Hold:
    """The decision to hold the campaign, and its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReleaseCanary:
    """The decision to release the rows that wait for the canary."""


def decide(watched: WatchedCampaign) -> Hold | ReleaseCanary | None:
    """Return the action for a campaign, or None for no action."""
    campaign = watched.campaign
    if campaign.canceled or campaign.hold is not None:
        return None
    if watched.hold_at is not None and watched.outcomes >= MIN_OUTCOMES:
        share = watched.failures / watched.outcomes
        if share > watched.hold_at:
            return Hold(
                f"{watched.failures} of the latest {watched.outcomes} failed, more than "
                f"{_percent(watched.hold_at)}"
            )
    return _decide_canary(watched)


def _decide_canary(watched: WatchedCampaign) -> Hold | ReleaseCanary | None:
    campaign = watched.campaign
    states = campaign.states
    sent, failed = states[State.SENT], states[State.FAILED]
    is_under_way = states[State.SENDING] or states[State.RETRYING]
    if campaign.canary_left != 0 or is_under_way or sent + failed < (watched.canary or 0):
        return None
    if watched.canary_max_failures is None:
        return Hold(f"canary: {sent} sent, {failed} failed; release the campaign to send the rest")
    if failed <= watched.canary_max_failures * (sent + failed):
        return ReleaseCanary()
    return Hold(
        f"canary: {failed} of {sent + failed} failed, more than "
        f"{_percent(watched.canary_max_failures)}"
    )


def _percent(share: float) -> str:
    return f"{share * 100:.4g}%"
