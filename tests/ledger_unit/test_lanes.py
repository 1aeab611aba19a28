"""Lanes: whose turn it is, how fast a page may go, and what holds it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from harasocial_dispatch.ledger import Claim, Pause
from harasocial_dispatch.schemas import OutcomeClass, State
from harasocial_dispatch.worker.outcome.classify import not_started

if TYPE_CHECKING:
    from .conftest import Story

START_MS = 1_769_851_800_000


def pages(claims: list[Claim]) -> Counter[str]:
    return Counter(claim.page_id for claim in claims)


def only(claims: list[Claim]) -> Claim:
    (claim,) = claims
    return claim


# Turns


def test_a_lane_is_served_in_the_order_of_its_jobs(story: Story):
    """First in, first out."""
    ids = [story.enqueue() for _ in range(10)]
    assert story.claim_ids(4) + story.claim_ids(100) == ids


def test_urgent_jobs_go_before_the_others_of_their_page(story: Story):
    """In their own order."""
    first, second = story.enqueue(), story.enqueue()
    urgent, more_urgent = story.enqueue(urgent=True), story.enqueue(urgent=True)
    assert story.claim_ids() == [urgent, more_urgent, first, second]


def test_a_small_page_is_not_held_back_by_a_campaign(story: Story):
    """However many jobs another page has waiting (design promise 8)."""
    for _ in range(200):
        story.enqueue("1")
    story.wait(0.01)
    small = story.enqueue("2")
    assert small in story.claim_ids(8)


def test_lanes_share_the_slots_evenly(story: Story):
    """Nearly: each leaves a fifth of what is free to those that come after it."""
    for page in "123":
        for _ in range(50):
            story.enqueue(page)
    found = pages(story.claim(30))
    assert sum(found.values()) >= 28
    assert all(found[page] >= 8 for page in "123")


def test_what_one_lane_cannot_use_goes_to_the_others(story: Story):
    """No slot stays free while there is work."""
    story.enqueue("1")
    for _ in range(50):
        story.enqueue("2")
    found = pages(story.claim(10))
    assert found["1"] == 1
    assert found["2"] >= 7


def test_no_lane_takes_all_the_slots(story: Story):
    """Its calls may hang; a part stays free for pages that come later (design promise 8)."""
    for _ in range(100):
        story.enqueue("1")
    taken = 0
    for _ in range(20):
        taken += len(story.claim(10 - taken, in_flight_by_page={"1": taken}))
    assert taken < 10
    story.enqueue("2")
    assert pages(story.claim(10 - taken, in_flight_by_page={"1": taken})) == {"2": 1}


@pytest.mark.parametrize("between_seconds", [0.001, 0.000_01])
def test_with_one_slot_every_page_gets_its_turn(story: Story, between_seconds: float):
    """A lane just served goes to the back, also within one millisecond."""
    for page in range(20):
        for _ in range(3):
            story.enqueue(str(page))
    turns = []
    for _ in range(60):
        story.wait(between_seconds)
        turns.append(only(story.claim(1)).page_id)
    assert [set(turns[start : start + 20]) for start in (0, 20, 40)] == [
        {str(page) for page in range(20)}
    ] * 3


def test_with_no_lane_ready_the_claim_says_how_long_it_takes(make_story: Callable[..., Story]):
    """None when nothing waits, 0 when more is ready."""
    story = make_story(page_rate=2.0)
    assert story.ledger.claim(5).wait_seconds is None
    story.enqueue()
    story.enqueue()
    found = story.ledger.claim(5)
    assert (len(found.claims), found.wait_seconds) == (1, pytest.approx(0.5, abs=0.002))
    story.wait(0.5)
    story.enqueue("2")
    assert story.ledger.claim(1).wait_seconds == 0


# Rate


def test_the_page_rate_spaces_messages_out(make_story: Callable[..., Story]):
    """4 a second: one each 250 ms, not one sooner."""
    story = make_story(page_rate=4.0)
    for _ in range(10):
        story.enqueue()
    times = []
    for tick in range(100):
        times += [tick * 0.025] * len(story.claim())
        story.wait(0.025)
    assert times == pytest.approx([0.25 * n for n in range(10)])


def test_the_burst_may_go_at_once(make_story: Callable[..., Story]):
    """But for what the rate allows while requests may be late; an idle page earns it back."""
    story = make_story(page_rate=4.0, page_burst=4)
    for _ in range(20):
        story.enqueue()
    assert len(story.claim()) == 3
    assert story.claim() == []
    story.wait(0.25)
    assert len(story.claim()) == 1
    story.wait(0.5)
    assert len(story.claim()) == 2
    story.wait(60)
    assert len(story.claim()) == 3
    assert story.claim() == []


def test_each_page_has_a_rate_of_its_own(make_story: Callable[..., Story]):
    """One at its limit does not hold another."""
    story = make_story(page_rate=1.0)
    for page in "12":
        story.enqueue(page)
        story.enqueue(page)
    assert pages(story.claim()) == {"1": 1, "2": 1}
    assert story.claim() == []


def test_the_rate_holds_over_an_empty_lane(make_story: Callable[..., Story]):
    """A page that enqueues one by one is not faster than one that enqueues all at once."""
    story = make_story(page_rate=1.0)
    story.enqueue()
    assert len(story.claim()) == 1
    story.wait(0.5)
    story.enqueue()
    assert story.claim() == []
    story.wait(0.5)
    assert len(story.claim()) == 1


@pytest.mark.parametrize("rate", [0.1, 3.0, 7.0, 999.0])
def test_over_time_the_rate_is_kept_and_reached(make_story: Callable[..., Story], rate: float):
    """Also where a second does not divide evenly: no rounding adds up."""
    story = make_story(page_rate=rate, page_burst=5)
    total = 60
    for _ in range(total):
        story.enqueue(expires_at="2026-06-01T00:00:00Z")
    seconds, sent = 0.0, 0
    while sent < total:
        found = story.ledger.claim(total)
        sent += len(found.claims)
        assert sent <= 5 + seconds * rate + 1e-3
        if sent < total:
            assert found.wait_seconds is not None
            pause = max(found.wait_seconds, 0.001)
            story.wait(pause)
            seconds += pause
    assert seconds * rate <= total - 5 + 60 * 0.002 * rate + 1


# Pauses


def test_a_throttled_lane_waits_as_long_as_it_was_asked(story: Story):
    """All its jobs do, and no other page (design promises 5 and 8)."""
    for _ in range(3):
        story.enqueue("1")
    claim = only(story.claim(1))
    story.record(claim, OutcomeClass.THROTTLED, error_code="4", retry_after_seconds=30.0)
    other = story.enqueue("2")
    assert story.claim_ids() == [other]
    assert story.ledger.reader.pauses() == [
        Pause(
            page_id="1",
            reason="throttled",
            error_code="4",
            until_ms=START_MS + 30_000,
            since_ms=START_MS,
            waiting=3,
        )
    ]
    story.wait(29.999)
    assert story.claim() == []
    story.wait(0.001)
    assert len(story.claim()) == 1


def test_without_retry_after_the_pauses_grow(story: Story):
    """1, 2, 4 … seconds while the page stays throttled; no attempt is spent meanwhile."""
    job_id = story.enqueue()
    for pause in (1, 2, 4, 8, 16, 32, 60, 60):
        claim = only(story.claim())
        story.record(claim, OutcomeClass.THROTTLED, error_code="http_429")
        story.wait(pause - 0.001)
        assert story.claim() == []
        story.wait(0.001)
    claim = only(story.claim())
    assert (claim.job_id, claim.attempts_spent) == (job_id, 0)
    story.record(claim, OutcomeClass.ACCEPTED)
    story.wait(10)
    story.enqueue()
    story.record(only(story.claim()), OutcomeClass.THROTTLED)
    story.wait(1)
    assert len(story.claim()) == 1, "a page that works begins anew"


def test_a_paused_lane_sends_one_probe(story: Story):
    """Not the whole lane against a closed door; its outcome decides."""
    for _ in range(5):
        story.enqueue()
    story.record(only(story.claim(1)), OutcomeClass.THROTTLED)
    story.wait(1)
    probe = only(story.claim())
    assert probe.consecutive_pauses == 1
    assert story.claim() == []
    story.wait(1)
    story.enqueue()
    assert story.claim() == [], "its call may still be under way"
    story.record(probe, OutcomeClass.ACCEPTED)
    assert story.ledger.reader.pauses() == []
    story.wait(60)
    assert len(story.claim()) == 5


def test_a_probe_that_never_ends_is_followed_by_another(story: Story):
    """After the longest time a call may take: its worker may have died."""
    for _ in range(3):
        story.enqueue()
    story.record(only(story.claim(1)), OutcomeClass.THROTTLED)
    story.wait(1)
    lost = only(story.claim())
    story.wait(story.settings.safe_call_deadline_seconds)
    assert only(story.claim()).job_id != lost.job_id


def test_a_refused_token_pauses_the_page(story: Story):
    """One job fails, the others wait: one dead token does not fail a whole campaign."""
    refused = story.enqueue("1")
    waiting = story.enqueue("1")
    story.record(only(story.claim(1)), OutcomeClass.AUTH, error_code="190", http_status=401)
    assert story.get(refused).error_code == "190"
    assert story.state(waiting) is State.QUEUED
    assert story.claim() == []
    (pause,) = story.ledger.reader.pauses()
    assert (pause.reason, pause.error_code, pause.token_fingerprint) == ("auth", "190", "old-token")
    story.wait(59.999)
    assert story.claim() == []
    story.wait(0.001)
    assert story.claim_ids() == [waiting]


def test_another_token_ends_the_pause_at_once(story: Story):
    """And rings, for there is work again."""
    story.enqueue("1")
    waiting = story.enqueue("1")
    story.record(only(story.claim(1, answers_bell=True)), OutcomeClass.AUTH)
    story.wait(2)
    assert story.rings(lambda: story.ledger.resume({"1": "old-token"}))
    assert story.ledger.reader.pauses() == []
    assert story.claim_ids() == [waiting]


@pytest.mark.parametrize(
    ("outcome_class", "refused"),
    [
        (OutcomeClass.AUTH, {"1": "a-third-token"}),
        (OutcomeClass.AUTH, {"2": "old-token"}),
        (OutcomeClass.AUTH, {}),
        (OutcomeClass.THROTTLED, {"1": ""}),
    ],
)
def test_a_new_token_ends_only_the_pause_of_the_old_one(
    story: Story, outcome_class: OutcomeClass, refused: dict[str, str]
):
    """Another process may have paused it for the new one; throttling is not its matter."""
    story.enqueue("1")
    story.enqueue("1")
    story.record(only(story.claim(1)), outcome_class)
    assert not story.rings(lambda: story.ledger.resume(refused))
    assert story.claim() == []


def test_five_failures_in_a_row_pause_a_lane(story: Story):
    """The breaker: four do not, and other pages go on."""
    for _ in range(10):
        story.enqueue("1")
    claims = story.claim(6)
    for claim in claims[:4]:
        story.record(claim, OutcomeClass.TRANSIENT)
    assert story.ledger.reader.pauses() == []
    story.record(claims[4], OutcomeClass.AMBIGUOUS, error_code="timeout")
    (pause,) = story.ledger.reader.pauses()
    assert (pause.reason, pause.error_code, pause.until_ms) == (
        "failing",
        "timeout",
        START_MS + 1000,
    )
    assert story.claim() == []
    assert len([story.enqueue("2"), *story.claim()]) == 2


@pytest.mark.parametrize("good", [OutcomeClass.ACCEPTED, OutcomeClass.PERMANENT])
def test_an_answer_from_the_page_forgets_the_failures(story: Story, good: OutcomeClass):
    """A refusal of one message is an answer too."""
    for _ in range(9):
        story.enqueue()
    claims = story.claim(9)
    for claim in claims[:4]:
        story.record(claim, OutcomeClass.TRANSIENT)
    story.record(claims[4], good)
    for claim in claims[5:]:
        story.record(claim, OutcomeClass.TRANSIENT)
    assert story.ledger.reader.pauses() == []


def test_a_failing_lane_waits_longer_with_each_failed_probe(story: Story):
    """1, 2, 4 … 30 seconds; calls that began before the pause count no more."""
    for _ in range(20):
        story.enqueue()
    claims = story.claim(8)
    for claim in claims:
        story.record(claim, OutcomeClass.TRANSIENT)
    for pause in (1, 2, 4, 8, 16, 30, 30):
        (found,) = story.ledger.reader.pauses()
        assert found.until_ms == story.clock_ms() + pause * 1000
        story.wait(pause)
        story.record(only(story.claim()), OutcomeClass.TRANSIENT)


def test_a_late_answer_does_not_end_a_pause(story: Story):
    """A call that began before it knows nothing of it; only the probe does."""
    for _ in range(3):
        story.enqueue()
    early, throttled = story.claim(2)
    story.record(throttled, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    story.record(early, OutcomeClass.ACCEPTED)
    assert story.claim() == []
    assert len(story.ledger.reader.pauses()) == 1


def test_the_longest_wait_that_was_asked_for_holds(story: Story):
    """Two calls in flight may be told different times."""
    for _ in range(3):
        story.enqueue()
    one, other = story.claim(2)
    story.record(one, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    story.record(other, OutcomeClass.THROTTLED, retry_after_seconds=5.0)
    story.wait(29.999)
    assert story.claim() == []
    story.wait(0.001)
    assert only(story.claim()).consecutive_pauses == 1


def test_a_pause_holds_for_jobs_that_come_later(story: Story):
    """Also when the lane ran empty meanwhile."""
    story.enqueue()
    story.record(only(story.claim()), OutcomeClass.AUTH)
    story.enqueue()
    assert story.claim() == []
    story.wait(60)
    assert only(story.claim()).consecutive_pauses == 1


def test_paused_lanes_hold_no_place(story: Story):
    """A thousand closed pages do not keep one open page waiting."""
    for page in range(100, 200):
        story.enqueue(str(page))
    for claim in story.claim(100):
        story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=60.0)
    job_id = story.enqueue("1")
    assert story.claim_ids(1) == [job_id]


def test_released_unsent_the_page_is_not_affected(story: Story):
    """The one job without a token has paused it; the others only return to their places."""
    ids = [story.enqueue() for _ in range(3)]
    claims = story.claim()
    story.record(claims[0], OutcomeClass.AUTH, error_code="token_missing", posted=False)
    for claim in reversed(claims[1:]):
        story.record(claim, OutcomeClass.THROTTLED, error_code="token_missing", posted=False)
    (pause,) = story.ledger.reader.pauses()
    assert (pause.reason, pause.until_ms) == ("auth", START_MS + 60_000)
    assert story.state(ids[0]) is State.FAILED
    story.wait(60)
    assert story.claim_ids() == [ids[1]]


def test_a_job_released_unsent_keeps_what_its_latest_attempt_was(story: Story):
    """It was too late to begin its request: no attempt, no error, and still a possible poison."""
    job_id = story.enqueue()
    story.claim()
    story.wait(61)
    story.sweep()
    story.wait(10)
    story.sweep()
    claim = only(story.claim())
    assert claim.possible_poison
    story.ledger.record([story.result(claim, not_started())])
    record = story.get(job_id)
    assert (record.state, record.error_code) == (State.QUEUED, "unknown_outcome")
    assert record.attempt_count == 1
    assert only(story.claim()).possible_poison


def test_pauses_outlive_nobody(story: Story):
    """A page that works leaves nothing behind."""
    for _ in range(6):
        story.enqueue()
    for claim in story.claim():
        story.record(claim, OutcomeClass.TRANSIENT)
    story.wait(1)
    story.wait(2)
    story.sweep()
    for _ in range(60):
        for claim in story.claim():
            story.record(claim, OutcomeClass.ACCEPTED)
        story.wait(0.1)
    story.sweep()
    assert story.counts() == {"sent": 6}
    left: set[Any] = {name.removeprefix("{test}:") for name in story.client.scan_iter("*")}
    assert not left & {"pauses", "lanes", "due", "ready:1", "urgent:1"}
