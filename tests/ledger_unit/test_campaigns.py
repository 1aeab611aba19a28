"""Campaigns: their lanes, counts, holds, cancellations, canaries and idempotency keys."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from harasocial_dispatch.ledger import Campaign, CampaignPage, Claim, JobFilter
from harasocial_dispatch.ledger.reading.campaigns import eta_seconds
from harasocial_dispatch.schemas import (
    CampaignCanceled,
    CampaignNotFound,
    IdempotencyConflict,
    NewJob,
    OutcomeClass,
    State,
    from_ms,
    parse_new_job,
)
from harasocial_dispatch.schemas.new_job import with_default_key
from harasocial_dispatch.worker.campaign_guard import Hold, ReleaseCanary, decide
from support.harness import present
from support.scenario import QuickScenario, Scenario

MakeScenario = Callable[..., Scenario]

ACCEPTED, PERMANENT, TRANSIENT = (
    OutcomeClass.ACCEPTED,
    OutcomeClass.PERMANENT,
    OutcomeClass.TRANSIENT,
)


def enqueue(scenario: Scenario, count: int, campaign: str | None, page_id: str = "1") -> list[str]:
    return [scenario.enqueue(page_id, campaign=campaign) for _ in range(count)]


def states(scenario: Scenario, name: str) -> dict[str, int]:
    return {state.value: count for state, count in scenario.campaign(name).states.items() if count}


def finish_cancel(scenario: Scenario, name: str) -> None:
    while scenario.ledger.continue_campaign_work(name, 10)[0]:
        pass


# Lanes.


def test_urgent_and_single_messages_go_before_campaigns(scenario: Scenario) -> None:
    """Even messages that are enqueued last are sent first."""
    campaign = enqueue(scenario, 2, "c")
    single = enqueue(scenario, 2, None)
    urgent = scenario.enqueue(urgent=True)
    assert scenario.claim_ids() == [urgent, *single, *campaign]


@pytest.mark.parametrize("at_once", [1, 4, 7])
def test_campaigns_of_a_page_share_its_rate(scenario: Scenario, at_once: int) -> None:
    """For any size of a claim, a campaign is never ahead of another by more than that size.

    A campaign with few new jobs does not overtake the large one each time.
    """
    scenario.ledger.set_rate("1", 10.0, at_once + 2, by="test")
    of = dict.fromkeys(enqueue(scenario, 60, "big"), "big")
    of |= dict.fromkeys(enqueue(scenario, 60, "other"), "other")
    taken: Counter[str] = Counter()
    for _ in range(20):
        of |= dict.fromkeys(enqueue(scenario, 1, "trickle"), "trickle")
        taken.update(of[job_id] for job_id in scenario.claim_ids())
        assert abs(taken["big"] - taken["other"]) <= at_once
        scenario.wait(at_once / 10)
    assert taken["big"] > 0
    assert taken["trickle"] <= taken["big"] + at_once


@pytest.mark.parametrize("campaign", [None, "c"])
def test_every_fourth_job_is_one_that_has_failed_before(
    scenario: Scenario, campaign: str | None
) -> None:
    """Neither failing jobs nor new jobs block the others."""
    again = enqueue(scenario, 2, campaign)
    for claim in scenario.claim():
        scenario.record(claim, TRANSIENT)
    scenario.wait(10)
    scenario.sweep()
    fresh = enqueue(scenario, 6, campaign)
    order = [scenario.claim_ids(1)[0] for _ in range(8)]
    assert [job_id for job_id in order if job_id in fresh] == fresh
    assert {order.index(job_id) for job_id in again} == {3, 7}


# Counts.


def test_a_campaign_counts_its_jobs_by_state_page_and_error(scenario: Scenario) -> None:
    """Given jobs with every kind of result, then totals, pages and errors match."""
    for page_id in ("1", "2"):
        enqueue(scenario, 3, "c", page_id)
    claims = {claim.job_id: claim for claim in scenario.claim()}
    first, second, third, *rest = claims.values()
    scenario.record(first, ACCEPTED)
    scenario.record(second, PERMANENT, error_code="551")
    scenario.record(third, TRANSIENT)
    campaign = scenario.campaign("c")
    assert states(scenario, "c") == {"sent": 1, "failed": 1, "retrying": 1, "sending": len(rest)}
    assert campaign.errors == {"551": 1}
    assert campaign.rows == 6
    assert campaign.finished_at is None
    assert {page_id: sum(page.states.values()) for page_id, page in campaign.pages.items()} == {
        "1": 3,
        "2": 3,
    }
    assert campaign.pages[second.page_id].errors == {"551": 1}


def test_finished_means_that_every_row_has_ended(scenario: Scenario) -> None:
    """A campaign is not finished while announced rows are missing or a row waits for a retry."""
    scenario.ledger.announce_campaign("c", rows=2)
    enqueue(scenario, 1, "c")
    scenario.record(scenario.claim()[0], ACCEPTED)

    def finished() -> bool:
        campaign = scenario.campaign("c")
        assert campaign.rows == 2
        return campaign.finished_at is not None

    assert not finished()
    enqueue(scenario, 1, "c")
    scenario.record(scenario.claim()[0], TRANSIENT)
    assert not finished()
    scenario.wait(10)
    scenario.sweep()
    scenario.record(scenario.claim()[0], PERMANENT)
    assert finished()
    scenario.ledger.replay(
        [scenario.ledger.reader.find(JobFilter(states=(State.FAILED,)), 1)[0].job_id]
    )
    assert not finished()


def test_counts_outlive_the_jobs_and_are_forgotten_after_the_last_change(
    make_scenario: MakeScenario,
) -> None:
    """Sent jobs are kept for a day, their campaign for a month."""
    scenario = make_scenario(sent_ttl_seconds=10, failed_ttl_seconds=20, campaign_ttl_seconds=1000)
    job_ids = enqueue(scenario, 2, "c")
    scenario.record(scenario.claim(1)[0], ACCEPTED)
    scenario.record(scenario.claim(1)[0], PERMANENT)
    scenario.wait(900)
    scenario.sweep()
    scenario.ledger.continue_campaign_work()
    assert [scenario.ledger.reader.get(job_id) for job_id in job_ids] == [None, None]
    assert states(scenario, "c") == {"sent": 1, "failed": 1}
    scenario.wait(101)
    assert scenario.claim_ids() == []
    scenario.ledger.continue_campaign_work()
    assert scenario.ledger.reader.campaigns() == []
    left = [name for name in scenario.client.scan_iter("*") if "campaign" in name]
    assert left == []


def test_a_campaign_whose_jobs_wait_is_not_forgotten(make_scenario: MakeScenario) -> None:
    """It is kept for any time without changes."""
    scenario = make_scenario(campaign_ttl_seconds=100, expires_seconds=10_000)
    enqueue(scenario, 1, "c")
    for _ in range(5):
        scenario.wait(101)
        scenario.ledger.continue_campaign_work()
    assert states(scenario, "c") == {"queued": 1}


def test_the_rate_is_that_of_the_latest_half_minute(scenario: Scenario) -> None:
    """Given 60 jobs sent within 20 seconds, then 3 per second; later none."""
    enqueue(scenario, 60, "c")
    for _ in range(20):
        for claim in scenario.claim(3):
            scenario.record(claim, ACCEPTED)
        scenario.wait(1)
    campaign = scenario.campaign("c")
    assert campaign.rate == pytest.approx(3.0, rel=0.1)
    scenario.wait(60)
    (campaign,) = scenario.ledger.reader.campaigns()
    assert campaign.rate == 0
    assert campaign.average_rate == pytest.approx(60 / 19, rel=0.01), "until it was finished"


# Idempotency keys.


def new_job(recipient_id: str = "1", **options: str) -> NewJob:
    body = {
        "recipient": {"id": recipient_id},
        "message": {"payload_id": "__hrf_f_" + "9" * 200},
        "page_id": "1",
    }
    metadata = options.pop("metadata", None)
    return with_default_key(
        parse_new_job(body if metadata is None else {**body, "metadata": metadata}, options)
    )


def test_a_row_without_a_key_is_one_message_per_recipient_and_payload(scenario: Scenario) -> None:
    """The same row again is the same job. The job shows its complete key."""
    first, same, other = scenario.ledger.enqueue(
        [new_job(campaign="c"), new_job(campaign="c"), new_job("2", campaign="c")]
    ).jobs
    assert (first.is_new, same.is_new, other.is_new) == (True, False, True)
    assert same.job_id == first.job_id
    key = "c/1/1/__hrf_f_" + "9" * 200
    assert scenario.get(first.job_id).idempotency_key == key
    assert scenario.ledger.enqueue([new_job(campaign="d")]).jobs[0].is_new


@pytest.mark.parametrize("end", [ACCEPTED, PERMANENT, None])
def test_a_key_of_a_campaign_outlives_its_job(
    make_scenario: MakeScenario, end: OutcomeClass | None
) -> None:
    """For CAMPAIGN_TTL_SECONDS, the same row is not sent again; another body is a conflict."""
    scenario = make_scenario(sent_ttl_seconds=10, failed_ttl_seconds=10, campaign_ttl_seconds=1000)
    (job_id,) = scenario.ledger.enqueue([new_job(campaign="c")]).job_ids
    if end is None:
        scenario.ledger.cancel([job_id])
    else:
        scenario.record(scenario.claim()[0], end)
    scenario.wait(990)
    scenario.sweep()
    assert scenario.ledger.reader.get(job_id) is None
    (again,) = scenario.ledger.enqueue([new_job(campaign="c")]).jobs
    assert (again.job_id, again.is_new) == (job_id, False)
    with pytest.raises(IdempotencyConflict, match="body"):
        scenario.ledger.enqueue([new_job(campaign="c", metadata="another")])
    scenario.wait(20)
    assert scenario.ledger.enqueue([new_job(campaign="c")]).jobs[0].is_new


# Hold, release, cancel.


def test_holding_does_not_affect_the_pages_other_messages(scenario: Scenario) -> None:
    """Given two campaigns and a single message, only the held one waits until its release."""
    scenario.sweep()
    held, other = enqueue(scenario, 3, "held"), enqueue(scenario, 2, "other")
    single = enqueue(scenario, 1, None)
    assert scenario.ledger.hold_campaign("held", "wrong text", by="ann")
    assert not scenario.ledger.hold_campaign("held", "again", by="bob"), "the first reason stays"
    assert scenario.claim_ids() == [*single, *other]
    hold = present(scenario.campaign("held").hold)
    assert (hold.reason, hold.by) == ("wrong text", "ann")
    assert scenario.ledger.reader.waiting_by_page() == {"1": 3}
    assert {
        job.job_id for job in scenario.ledger.reader.find(JobFilter(campaigns=("held",)), 9)
    } == {*held}
    assert scenario.sweep().repairs == [], "closed lanes are in order"
    more = enqueue(scenario, 1, "held")
    assert scenario.claim_ids() == []
    scenario.wait(10)
    assert scenario.rings(lambda: scenario.ledger.release_campaign("held", by="ann"))
    assert scenario.claim_ids() == [*held, *more]
    assert not scenario.ledger.release_campaign("held", by="ann")


def test_a_job_canceled_in_a_held_campaign_is_neither_counted_nor_left_behind(
    scenario: Scenario,
) -> None:
    """Its id stays in the lane until the campaign is released. A recount passes over it."""
    (job_id,) = enqueue(scenario, 1, "c")
    scenario.ledger.cancel([job_id])
    scenario.ledger.hold_campaign("c", by="ann")
    assert scenario.claim() == [], "the lane is closed"

    scenario.sweep()
    assert scenario.ledger.reader.count_states()[State.QUEUED] == 0

    scenario.ledger.release_campaign("c", by="ann")
    assert scenario.claim() == []
    assert scenario.client.exists(scenario.key("ready:1/c"), scenario.key("canceled_in_lane")) == 0


def test_a_release_that_stops_half_way_is_finished_by_the_workers(scenario: Scenario) -> None:
    """Given a release whose process died after its first call, then every page sends again."""
    for page in range(300):
        enqueue(scenario, 1, "c", str(page))
    scenario.ledger.hold_campaign("c", by="ann")
    assert scenario.claim_ids(1000) == []
    scenario.ledger._mark_campaign("release", scenario.ledger.reader.audit(1)[0])
    while scenario.ledger.continue_campaign_work()[0]:
        pass
    assert len(scenario.claim_ids(1000)) == 300


def test_canceling_stops_a_campaign_at_once_and_permanently(scenario: Scenario) -> None:
    """Waiting jobs in all states are canceled; calls in flight end."""
    later = scenario.enqueue(campaign="c", send_at=from_ms(scenario.clock_ms() + 3_600_000))
    enqueue(scenario, 30, "c")
    single = scenario.enqueue()
    claims = scenario.claim(11)
    claims = [claim for claim in claims if claim.job_id != single]
    retried, throttled, in_flight, failed, *lost = claims
    scenario.record(retried, TRANSIENT)
    scenario.record(failed, PERMANENT, error_code="551")
    assert scenario.ledger.cancel_campaign("c", by="ann")
    assert not scenario.ledger.cancel_campaign("c", by="ann")
    assert scenario.claim_ids() == [], "no job is sent after the mark"
    scenario.record(throttled, OutcomeClass.THROTTLED)
    scenario.record(in_flight, ACCEPTED)
    finish_cancel(scenario, "c")
    late = scenario.enqueue(campaign="c")
    for job_id in (later, retried.job_id, throttled.job_id, late):
        assert scenario.state(job_id) is State.CANCELLED
    assert scenario.ledger.replay([failed.job_id]) == [State.CANCELLED]
    assert scenario.state(failed.job_id) is State.FAILED
    scenario.wait(100)
    scenario.sweep()
    scenario.sweep()
    assert scenario.claim_ids() == []
    assert states(scenario, "c") == {"sent": 1, "failed": 1, "cancelled": 30}
    assert len(lost) > 0
    assert scenario.campaign("c").finished_at is not None
    for action in (scenario.ledger.hold_campaign, scenario.ledger.release_campaign):
        with pytest.raises(CampaignCanceled):
            action("c", by="ann")


def test_a_cancel_that_stops_half_way_is_finished_by_the_workers(scenario: Scenario) -> None:
    """Any worker takes the remaining steps, and each step is limited."""
    for page_id in ("1", "2", "3"):
        enqueue(scenario, 20, "c", page_id)
    enqueue(scenario, 1, "other")
    scenario.ledger.cancel_campaign("c", by="ann")
    assert scenario.ledger.continue_campaign_work("c", 15) == (True, 15)
    steps = [15]
    while scenario.ledger.continue_campaign_work(limit=15)[0]:
        steps.append(states(scenario, "c")["cancelled"])
    assert all(after - before <= 15 for before, after in pairwise(steps))
    assert states(scenario, "c") == {"cancelled": 60}
    assert states(scenario, "other") == {"queued": 1}
    assert scenario.counts() == scenario.recount()


def test_a_claim_that_was_lost_sends_nothing_of_a_canceled_campaign(scenario: Scenario) -> None:
    """Given jobs of a lost claim, when they are released, then they are canceled."""
    enqueue(scenario, 3, "c")
    scenario.claim_and_lose_the_reply()
    scenario.ledger.cancel_campaign("c", by="ann")
    finish_cancel(scenario, "c")
    assert scenario.claim_ids() == []
    assert states(scenario, "c") == {"cancelled": 3}


def test_an_unknown_campaign_is_an_error(scenario: Scenario) -> None:
    """It does not create a hold that never ends."""
    ledger = scenario.ledger
    with pytest.raises(CampaignNotFound):
        ledger.hold_campaign("c", by="ann")
    with pytest.raises(CampaignNotFound):
        ledger.release_campaign("c", by="ann")
    with pytest.raises(CampaignNotFound):
        ledger.cancel_campaign("c", by="ann")


def test_what_was_done_to_a_campaign_is_in_the_audit(scenario: Scenario) -> None:
    """The entry has the author, the reason, and the number of waiting jobs."""
    enqueue(scenario, 3, "c")
    scenario.ledger.hold_campaign("c", "wrong text", by="ann", via="cli")
    scenario.ledger.release_campaign("c", by="bob")
    scenario.ledger.cancel_campaign("c", by="eve")
    scenario.ledger.cancel_campaign("c", by="eve")
    entries = scenario.ledger.reader.audit()
    assert Counter((e.action, e.by, e.via, e.campaign, e.reason, e.count) for e in entries) == {
        ("hold", "ann", "cli", "c", "wrong text", 3): 1,
        ("release", "bob", "python", "c", None, 3): 1,
        ("cancel", "eve", "python", "c", None, 3): 1,
    }


# Canary, and hold-at.


def guard(scenario: Scenario) -> Hold | ReleaseCanary | None:
    """Decide like the sweeper, for the one campaign with rules, and apply the decision."""
    (watched,), _ = scenario.ledger.reader.watched_campaigns()
    decision = decide(watched)
    if isinstance(decision, Hold):
        scenario.ledger.hold_campaign("c", decision.reason, by="rules")
    elif decision is not None:
        scenario.ledger.release_campaign("c", by="rules", canary_only=True)
    return decision


def claim(scenario: Scenario, count: int) -> list[Claim]:
    """Claim this many jobs. One claim never takes all slots, so several are made."""
    claims: list[Claim] = []
    while len(claims) < count:
        claims += scenario.claim(count - len(claims))
    return claims


def end(scenario: Scenario, claims: list[Claim], failed: int) -> None:
    for i, claim in enumerate(claims):
        scenario.record(claim, PERMANENT if i < failed else ACCEPTED)


@pytest.mark.parametrize(
    ("max_failures", "failed", "decision"),
    [
        (0.2, 1, ReleaseCanary()),
        (0.2, 2, Hold("canary: 2 of 5 failed, more than 20%")),
        (None, 1, Hold("canary: 4 sent, 1 failed; release the campaign to send the rest")),
    ],
)
def test_a_canary_goes_first_and_decides_about_the_rest(
    make_scenario: MakeScenario,
    max_failures: float | None,
    failed: int,
    decision: Hold | ReleaseCanary,
) -> None:
    """Given 20 rows on two pages and a canary of 5, then 5 are sent, with their retries."""
    scenario = make_scenario(lease_seconds=3600)
    scenario.sweep()
    scenario.ledger.announce_campaign("c", canary=5, canary_max_failures=max_failures)
    for page_id in ("1", "2"):
        enqueue(scenario, 10, "c", page_id)
    claims = scenario.claim()
    assert len(claims) == 5
    scenario.record(claims[0], OutcomeClass.THROTTLED)
    assert guard(scenario) is None
    scenario.record(claims[1], TRANSIENT)
    scenario.wait(600)
    scenario.sweep()
    # Both are claimed again: the throttled job counts once.
    again = scenario.claim()
    scenario.wait(600)
    again += scenario.claim()
    assert {claim.job_id for claim in again} == {claims[0].job_id, claims[1].job_id}
    assert scenario.sweep().repairs == []
    assert guard(scenario) is None, "two are in flight"
    end(scenario, claims[2:] + again, failed)
    assert scenario.claim_ids() == []
    assert guard(scenario) == decision
    campaign = scenario.campaign("c")
    if isinstance(decision, Hold):
        assert (campaign.held, campaign.reason) == (True, decision.reason)
        assert scenario.claim_ids() == []
        scenario.ledger.release_campaign("c", by="ann")
        assert guard(scenario) is None, "a person decided"
    scenario.wait(100)
    assert len(scenario.claim_ids()) == 15


def test_a_campaign_is_held_when_too_many_of_its_latest_jobs_fail(scenario: Scenario) -> None:
    """After an operator released it, the share is measured from the release."""
    scenario.ledger.announce_campaign("c", hold_at=0.2)
    enqueue(scenario, 200, "c")
    end(scenario, claim(scenario, 19), failed=19)
    assert guard(scenario) is None, "too few to say"
    end(scenario, claim(scenario, 76), failed=0)
    assert guard(scenario) is None, "19 of 95 are 20%"
    end(scenario, claim(scenario, 5), failed=5)
    assert guard(scenario) == Hold("24 of the latest 100 failed, more than 20%")
    assert scenario.claim_ids() == []
    scenario.ledger.release_campaign("c", by="ann")
    end(scenario, claim(scenario, 20), failed=5)
    assert guard(scenario) == Hold("5 of the latest 20 failed, more than 20%")


def test_only_the_latest_500_outcomes_decide(quick_scenario: QuickScenario) -> None:
    """Old failures do not hold a campaign that works now."""
    scenario = quick_scenario
    scenario.ledger.announce_campaign("c", hold_at=0.2)
    enqueue(scenario, 900, "c")
    end(scenario, claim(scenario, 400), failed=400)
    end(scenario, claim(scenario, 400), failed=0)
    (watched,), _ = scenario.ledger.reader.watched_campaigns()
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
) -> None:
    """Given 300 jobs waiting on page 1 and 100 on page 2, then the slowest page decides."""

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


def test_a_campaigns_time_left_follows_rates_and_pauses(make_scenario: MakeScenario) -> None:
    """The page's own rate or the setting applies; a pause without an end makes it unknown."""
    scenario = make_scenario(page_rate=2.0)
    enqueue(scenario, 10, "c")

    def left() -> float | None:
        return scenario.campaign("c").eta_seconds

    assert left() == 5.0
    scenario.ledger.set_rate("1", 10.0, by="ann")
    assert left() == 1.0
    scenario.ledger.pause_page("1", by="ann", for_seconds=60)
    assert left() == 61.0
    scenario.ledger.pause_all(by="ann")
    assert left() is None
