"""Campaigns: their lanes, counts, holds, cancels, canaries and idempotency keys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from harasocial_dispatch.ledger import Campaign, CampaignPage, Claim, JobFilter
from harasocial_dispatch.ledger.reading.campaigns import eta_seconds
from harasocial_dispatch.schemas import (
    CampaignCanceled,
    CampaignNotFound,
    IdempotencyConflict,
    OutcomeClass,
    State,
    from_ms,
    parse_new_job,
)
from harasocial_dispatch.schemas.new_job import with_default_key
from harasocial_dispatch.worker.campaign_guard import Hold, ReleaseCanary, decide

if TYPE_CHECKING:
    from .conftest import Story

    MakeStory = Callable[..., Story]

ACCEPTED, PERMANENT, TRANSIENT = (
    OutcomeClass.ACCEPTED,
    OutcomeClass.PERMANENT,
    OutcomeClass.TRANSIENT,
)


def enqueue(story: Story, count: int, campaign: str | None, page_id: str = "1") -> list[str]:
    return [story.enqueue(page_id, campaign=campaign) for _ in range(count)]


def states(story: Story, name: str) -> dict[str, int]:
    campaign = story.ledger.reader.campaign(name)
    assert campaign is not None
    return {state.value: count for state, count in campaign.states.items() if count}


def finish_cancel(story: Story, name: str) -> None:
    while story.ledger.cancel_campaign_chunk(name, 10)[0]:
        pass


# Lanes.


def test_urgent_and_single_messages_go_before_campaigns(story: Story):
    """Also those that are enqueued last."""
    campaign = enqueue(story, 2, "c")
    single = enqueue(story, 2, None)
    urgent = story.enqueue(urgent=True)
    assert story.claim_ids() == [urgent, *single, *campaign]


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_campaigns_of_a_page_share_its_rate(story: Story, at_once: int):
    """Whatever a claim may take: no campaign is ever ahead of another by more than that.

    A campaign with a trickle of jobs does not overtake the large one each time.
    """
    story.ledger.set_rate("1", 10.0, at_once + 2, by="test")
    of = dict.fromkeys(enqueue(story, 60, "big"), "big")
    of |= dict.fromkeys(enqueue(story, 60, "other"), "other")
    taken: Counter[str] = Counter()
    for _ in range(20):
        of |= dict.fromkeys(enqueue(story, 1, "trickle"), "trickle")
        taken.update(of[job_id] for job_id in story.claim_ids())
        assert abs(taken["big"] - taken["other"]) <= at_once
        story.wait(at_once / 10)
    assert taken["big"] > 0
    assert taken["trickle"] <= taken["big"] + at_once


@pytest.mark.parametrize("campaign", [None, "c"])
def test_every_fourth_job_is_one_that_has_failed_before(story: Story, campaign: str | None):
    """So neither those that keep failing nor new ones hold back the others."""
    again = enqueue(story, 2, campaign)
    for claim in story.claim():
        story.record(claim, TRANSIENT)
    story.wait(10)
    story.sweep()
    fresh = enqueue(story, 6, campaign)
    order = [story.claim_ids(1)[0] for _ in range(8)]
    assert [job_id for job_id in order if job_id in fresh] == fresh
    assert {order.index(job_id) for job_id in again} == {3, 7}


# Counts.


def test_a_campaign_counts_its_jobs_by_state_page_and_error(story: Story):
    """Given jobs with every kind of end, then totals, pages and errors agree."""
    for page_id in ("1", "2"):
        enqueue(story, 3, "c", page_id)
    claims = {claim.job_id: claim for claim in story.claim()}
    first, second, third, *rest = claims.values()
    story.record(first, ACCEPTED)
    story.record(second, PERMANENT, error_code="551")
    story.record(third, TRANSIENT)
    campaign = story.ledger.reader.campaign("c")
    assert campaign is not None
    assert states(story, "c") == {"sent": 1, "failed": 1, "retrying": 1, "sending": len(rest)}
    assert campaign.errors == {"551": 1}
    assert campaign.rows == 6
    assert campaign.finished_at is None
    assert {page_id: sum(page.states.values()) for page_id, page in campaign.pages.items()} == {
        "1": 3,
        "2": 3,
    }
    assert campaign.pages[second.page_id].errors == {"551": 1}


def test_finished_means_that_every_row_has_ended(story: Story):
    """Neither while announced rows are to come, nor while one waits for a retry."""
    story.ledger.announce_campaign("c", rows=2)
    enqueue(story, 1, "c")
    story.record(story.claim()[0], ACCEPTED)

    def finished() -> bool:
        campaign = story.ledger.reader.campaign("c")
        assert campaign is not None and campaign.rows == 2
        return campaign.finished_at is not None

    assert not finished()
    enqueue(story, 1, "c")
    story.record(story.claim()[0], TRANSIENT)
    assert not finished()
    story.wait(10)
    story.sweep()
    story.record(story.claim()[0], PERMANENT)
    assert finished()
    story.ledger.replay([story.ledger.reader.find(JobFilter(states=(State.FAILED,)), 1)[0].job_id])
    assert not finished()


def test_counts_outlive_the_jobs_and_are_forgotten_after_the_last_change(make_story: MakeStory):
    """Sent jobs are kept for a day, their campaign for a month."""
    story = make_story(sent_ttl_seconds=10, failed_ttl_seconds=20, campaign_ttl_seconds=1000)
    job_ids = enqueue(story, 2, "c")
    story.record(story.claim(1)[0], ACCEPTED)
    story.record(story.claim(1)[0], PERMANENT)
    story.wait(900)
    story.sweep()
    story.ledger.continue_campaign_work()
    assert [story.ledger.reader.get(job_id) for job_id in job_ids] == [None, None]
    assert states(story, "c") == {"sent": 1, "failed": 1}
    story.wait(101)
    assert story.claim_ids() == []
    story.ledger.continue_campaign_work()
    assert story.ledger.reader.campaigns() == []
    left = [name for name in story.client.scan_iter("*") if "campaign" in name]
    assert left == []


def test_a_campaign_whose_jobs_wait_is_not_forgotten(make_story: MakeStory):
    """However long nothing happens."""
    story = make_story(campaign_ttl_seconds=100, expires_seconds=10_000)
    enqueue(story, 1, "c")
    for _ in range(5):
        story.wait(101)
        story.ledger.continue_campaign_work()
    assert states(story, "c") == {"queued": 1}


def test_the_rate_is_that_of_the_latest_half_minute(story: Story):
    """Given 60 jobs sent within 20 seconds, then 3 a second; later none."""
    enqueue(story, 60, "c")
    for _ in range(20):
        for claim in story.claim(3):
            story.record(claim, ACCEPTED)
        story.wait(1)
    campaign = story.ledger.reader.campaign("c")
    assert campaign is not None
    assert campaign.rate == pytest.approx(3.0, rel=0.1)
    story.wait(60)
    (campaign,) = story.ledger.reader.campaigns()
    assert campaign.rate == 0
    assert campaign.average_rate == pytest.approx(60 / 19, rel=0.01), "until it was finished"


# Idempotency keys.


def new_job(recipient_id: str = "1", **options: str):
    body = {
        "recipient": {"id": recipient_id},
        "message": {"payload_id": "__hrf_f_" + "9" * 200},
        "page_id": "1",
    }
    metadata = options.pop("metadata", None)
    return with_default_key(
        parse_new_job(body if metadata is None else {**body, "metadata": metadata}, options)
    )


def test_a_row_without_a_key_is_one_message_per_recipient_and_payload(story: Story):
    """The same row again is the same job; it shows its whole key."""
    first, same, other = story.ledger.enqueue(
        [new_job(campaign="c"), new_job(campaign="c"), new_job("2", campaign="c")]
    ).jobs
    assert (first.is_new, same.is_new, other.is_new) == (True, False, True)
    assert same.job_id == first.job_id
    key = "c/1/1/__hrf_f_" + "9" * 200
    assert story.get(first.job_id).idempotency_key == key
    assert story.ledger.enqueue([new_job(campaign="d")]).jobs[0].is_new


@pytest.mark.parametrize("end", [ACCEPTED, PERMANENT, None])
def test_a_key_of_a_campaign_outlives_its_job(make_story: MakeStory, end: OutcomeClass | None):
    """The same row sends nothing again for CAMPAIGN_TTL_SECONDS; another body is a conflict."""
    story = make_story(sent_ttl_seconds=10, failed_ttl_seconds=10, campaign_ttl_seconds=1000)
    (job_id,) = story.ledger.enqueue([new_job(campaign="c")]).job_ids
    if end is None:
        story.ledger.cancel([job_id])
    else:
        story.record(story.claim()[0], end)
    story.wait(990)
    story.sweep()
    assert story.ledger.reader.get(job_id) is None
    (again,) = story.ledger.enqueue([new_job(campaign="c")]).jobs
    assert (again.job_id, again.is_new) == (job_id, False)
    with pytest.raises(IdempotencyConflict, match="body"):
        story.ledger.enqueue([new_job(campaign="c", metadata="another")])
    story.wait(20)
    assert story.ledger.enqueue([new_job(campaign="c")]).jobs[0].is_new


# Hold, release, cancel.


def test_holding_leaves_the_pages_other_messages_alone(story: Story):
    """Given two campaigns and a single message, then only the held one waits; release sends it."""
    story.sweep()
    held, other = enqueue(story, 3, "held"), enqueue(story, 2, "other")
    single = enqueue(story, 1, None)
    assert story.ledger.hold_campaign("held", "wrong text", by="ann")
    assert not story.ledger.hold_campaign("held", "again", by="bob"), "the first reason stays"
    assert story.claim_ids() == [*single, *other]
    campaign = story.ledger.reader.campaign("held")
    assert campaign is not None and campaign.hold is not None
    assert (campaign.hold.reason, campaign.hold.by) == ("wrong text", "ann")
    assert story.ledger.reader.waiting_by_page() == {"1": 3}
    assert {job.job_id for job in story.ledger.reader.find(JobFilter(campaigns=("held",)), 9)} == {
        *held
    }
    assert story.sweep().repairs == [], "closed lanes are in order"
    more = enqueue(story, 1, "held")
    assert story.claim_ids() == []
    story.wait(10)
    assert story.rings(lambda: story.ledger.release_campaign("held", by="ann"))
    assert story.claim_ids() == [*held, *more]
    assert not story.ledger.release_campaign("held", by="ann")


def test_a_release_that_stops_half_way_is_finished_by_the_workers(story: Story):
    """Given a release whose process died after its first call, then every page sends again."""
    for page in range(300):
        enqueue(story, 1, "c", str(page))
    story.ledger.hold_campaign("c", by="ann")
    assert story.claim_ids(1000) == []
    story.ledger._mark_campaign("release", story.ledger.reader.audit(1)[0])
    while story.ledger.continue_campaign_work()[0]:
        pass
    assert len(story.claim_ids(1000)) == 300


def test_canceling_stops_a_campaign_at_once_and_for_good(story: Story):
    """Whatever state its jobs are in: what waits is canceled, and what is in flight ends."""
    later = story.enqueue(campaign="c", send_at=from_ms(story.clock_ms() + 3_600_000))
    enqueue(story, 30, "c")
    single = story.enqueue()
    claims = story.claim(11)
    claims = [claim for claim in claims if claim.job_id != single]
    retried, throttled, in_flight, failed, *lost = claims
    story.record(retried, TRANSIENT)
    story.record(failed, PERMANENT, error_code="551")
    assert story.ledger.cancel_campaign("c", by="ann")
    assert not story.ledger.cancel_campaign("c", by="ann")
    assert story.claim_ids() == [], "nothing is sent from the mark on"
    story.record(throttled, OutcomeClass.THROTTLED)
    story.record(in_flight, ACCEPTED)
    finish_cancel(story, "c")
    late = story.enqueue(campaign="c")
    for job_id in (later, retried.job_id, throttled.job_id, late):
        assert story.state(job_id) is State.CANCELLED
    assert story.ledger.replay([failed.job_id]) == [State.CANCELLED]
    assert story.state(failed.job_id) is State.FAILED
    story.wait(100)
    story.sweep()
    story.sweep()
    assert story.claim_ids() == []
    assert states(story, "c") == {"sent": 1, "failed": 1, "cancelled": 30}
    assert len(lost) > 0
    campaign = story.ledger.reader.campaign("c")
    assert campaign is not None and campaign.finished_at is not None
    for action in (story.ledger.hold_campaign, story.ledger.release_campaign):
        with pytest.raises(CampaignCanceled):
            action("c", by="ann")


def test_a_cancel_that_stops_half_way_is_finished_by_the_workers(story: Story):
    """In bounded steps, whoever takes them."""
    for page_id in ("1", "2", "3"):
        enqueue(story, 20, "c", page_id)
    enqueue(story, 1, "other")
    story.ledger.cancel_campaign("c", by="ann")
    assert story.ledger.cancel_campaign_chunk("c", 15) == (True, 15)
    steps = [15]
    while story.ledger.continue_campaign_work(limit=15)[0]:
        steps.append(states(story, "c")["cancelled"])
    assert all(after - before <= 15 for before, after in pairwise(steps))
    assert states(story, "c") == {"cancelled": 60}
    assert states(story, "other") == {"queued": 1}
    assert story.counts() == story.recount()


def test_a_claim_that_was_lost_sends_nothing_of_a_canceled_campaign(story: Story):
    """Given jobs claimed by a lost reply, when they are released, then they are canceled."""
    enqueue(story, 3, "c")
    story.claim_and_lose_the_reply()
    story.ledger.cancel_campaign("c", by="ann")
    finish_cancel(story, "c")
    assert story.claim_ids() == []
    assert states(story, "c") == {"cancelled": 3}


def test_an_unknown_campaign_is_an_error(story: Story):
    """Not a hold that never ends."""
    for action in (
        lambda: story.ledger.hold_campaign("c", by="ann"),
        lambda: story.ledger.release_campaign("c", by="ann"),
        lambda: story.ledger.cancel_campaign("c", by="ann"),
    ):
        with pytest.raises(CampaignNotFound):
            action()


def test_what_was_done_to_a_campaign_is_in_the_audit(story: Story):
    """By whom, why, and how many jobs waited."""
    enqueue(story, 3, "c")
    story.ledger.hold_campaign("c", "wrong text", by="ann", via="cli")
    story.ledger.release_campaign("c", by="bob")
    story.ledger.cancel_campaign("c", by="eve")
    story.ledger.cancel_campaign("c", by="eve")
    entries = story.ledger.reader.audit()
    assert Counter((e.action, e.by, e.via, e.campaign, e.reason, e.count) for e in entries) == {
        ("hold", "ann", "cli", "c", "wrong text", 3): 1,
        ("release", "bob", "python", "c", None, 3): 1,
        ("cancel", "eve", "python", "c", None, 3): 1,
    }


# Canary, and hold-at.


def guard(story: Story) -> Hold | ReleaseCanary | None:
    """Decide as the sweeper does, for the one campaign with rules, and act on it."""
    (watched,), _ = story.ledger.reader.watched_campaigns()
    decision = decide(watched)
    if isinstance(decision, Hold):
        story.ledger.hold_campaign("c", decision.reason, by="rules")
    elif decision is not None:
        story.ledger.release_campaign("c", by="rules", canary_only=True)
    return decision


def claim(story: Story, count: int) -> list[Claim]:
    """Claim so many jobs; one claim leaves a part of its slots to other pages."""
    claims: list[Claim] = []
    while len(claims) < count:
        claims += story.claim(count - len(claims))
    return claims


def end(story: Story, claims: list[Claim], failed: int) -> None:
    for i, claim in enumerate(claims):
        story.record(claim, PERMANENT if i < failed else ACCEPTED)


@pytest.mark.parametrize(
    ("max_failures", "failed", "decision"),
    [
        (0.2, 1, ReleaseCanary()),
        (0.2, 2, Hold("canary: 2 of 5 failed, more than 20%")),
        (None, 1, Hold("canary: 4 sent, 1 failed; release the campaign to send the rest")),
    ],
)
def test_a_canary_goes_first_and_decides_about_the_rest(
    make_story: MakeStory,
    max_failures: float | None,
    failed: int,
    decision: Hold | ReleaseCanary,
):
    """Given 20 rows on two pages and a canary of 5, then 5 are sent, with their retries."""
    story = make_story(lease_seconds=3600)
    story.sweep()
    story.ledger.announce_campaign("c", canary=5, canary_max_failures=max_failures)
    for page_id in ("1", "2"):
        enqueue(story, 10, "c", page_id)
    claims = story.claim()
    assert len(claims) == 5
    story.record(claims[0], OutcomeClass.THROTTLED)
    assert guard(story) is None
    story.record(claims[1], TRANSIENT)
    story.wait(600)
    story.sweep()
    # Both come back: the throttled one counts once.
    again = story.claim()
    story.wait(600)
    again += story.claim()
    assert {claim.job_id for claim in again} == {claims[0].job_id, claims[1].job_id}
    assert story.sweep().repairs == []
    assert guard(story) is None, "two are in flight"
    end(story, claims[2:] + again, failed)
    assert story.claim_ids() == []
    assert guard(story) == decision
    campaign = story.ledger.reader.campaign("c")
    assert campaign is not None
    if isinstance(decision, Hold):
        assert (campaign.held, campaign.reason) == (True, decision.reason)
        assert story.claim_ids() == []
        story.ledger.release_campaign("c", by="ann")
        assert guard(story) is None, "a person decided"
    story.wait(100)
    assert len(story.claim_ids()) == 15


def test_a_campaign_is_held_when_too_many_of_its_latest_jobs_fail(story: Story):
    """Measured from the release on, if a person released it."""
    story.ledger.announce_campaign("c", hold_at=0.2)
    enqueue(story, 200, "c")
    end(story, claim(story, 19), failed=19)
    assert guard(story) is None, "too few to say"
    end(story, claim(story, 76), failed=0)
    assert guard(story) is None, "19 of 95 are 20%"
    end(story, claim(story, 5), failed=5)
    assert guard(story) == Hold("24 of the latest 100 failed, more than 20%")
    assert story.claim_ids() == []
    story.ledger.release_campaign("c", by="ann")
    end(story, claim(story, 20), failed=5)
    assert guard(story) == Hold("5 of the latest 20 failed, more than 20%")


def test_only_the_latest_500_outcomes_decide(story: Story):
    """Failures of long ago do not hold a campaign that works now."""
    story.ledger.announce_campaign("c", hold_at=0.2)
    enqueue(story, 900, "c")
    end(story, claim(story, 400), failed=400)
    end(story, claim(story, 400), failed=0)
    (watched,), _ = story.ledger.reader.watched_campaigns()
    assert (watched.outcomes, watched.failures) == (500, 100)


# Time left.


@pytest.mark.parametrize(
    ("changes", "page_rates", "pause_seconds", "seconds"),
    [
        ({}, {}, {}, None),
        ({"rate": 10.0}, {}, {}, 40.0),
        ({"rate": 10.0}, {"1": 2.0, "2": 100.0}, {}, 150.0),
        ({}, {"1": 30.0, "2": 30.0}, {}, 10.0),
        ({}, {"1": 30.0, "2": 30.0}, {"1": 60.0}, 70.0),
        ({"rate": 10.0}, {"1": 30.0}, {"1": math.inf}, None),
        ({"rate": 10.0, "rows": 1000}, {}, {}, 100.0),
        ({"rate": 10.0, "canary_left": 0}, {}, {}, None),
        ({"rate": 10.0, "canceled": True}, {}, {}, None),
    ],
)
def test_time_left(
    changes: dict[str, float],
    page_rates: dict[str, float],
    pause_seconds: dict[str, float],
    seconds: float | None,
):
    """Given 300 jobs waiting on page 1 and 100 on page 2, then the slowest decides."""

    def counts(waiting: int) -> dict[State, int]:
        return dict.fromkeys(State, 0) | {State.QUEUED: waiting}

    campaign = Campaign(
        name="c",
        **{"rows": 400, **changes},  # type: ignore[arg-type]
        states=counts(400),
        pages={
            "1": CampaignPage(states=counts(300), errors={}),
            "2": CampaignPage(states=counts(100), errors={}),
        },
    )
    assert eta_seconds(campaign, page_rates, pause_seconds) == seconds


def test_a_campaigns_time_left_follows_rates_and_pauses(make_story: MakeStory):
    """By the page's own rate, else the setting's; unknown while a page waits for its operator."""
    story = make_story(page_rate=2.0)
    enqueue(story, 10, "c")

    def left() -> float | None:
        campaign = story.ledger.reader.campaign("c")
        assert campaign is not None
        return campaign.eta_seconds

    assert left() == 5.0
    story.ledger.set_rate("1", 10.0, by="ann")
    assert left() == 1.0
    story.ledger.pause_page("1", by="ann", for_seconds=60)
    assert left() == 61.0
    story.ledger.pause_all(by="ann")
    assert left() is None
