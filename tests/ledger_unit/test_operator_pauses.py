"""Pauses and rates that an operator sets: what waits, for how long, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from harasocial_dispatch.ledger import ALL_PAGES, MANUAL, Lifted, PageRate, Pause
from harasocial_dispatch.schemas import InvalidRequest, OutcomeClass

if TYPE_CHECKING:
    from .conftest import Story

T = TypeVar("T")

BY = "hoa@ops-1"
START_MS = 1_769_851_800_000


def only(found: list[T]) -> T:
    (one,) = found
    return one


def test_a_paused_page_waits_until_it_is_resumed(story: Story):
    """Whatever is enqueued meanwhile; other pages are sent."""
    waiting = [story.enqueue("1"), story.enqueue("1", urgent=True)]
    assert story.ledger.pause_page("1", reason="wrong price", by=BY) == 2
    other = story.enqueue("2")
    waiting.append(story.enqueue("1"))
    assert story.claim_ids() == [other]
    assert story.ledger.claim(1).wait_seconds is None, "no time is known"
    story.wait(40 * 86_400)
    assert story.claim_ids() == []
    assert story.ledger.reader.pauses() == [
        Pause(
            page_id="1",
            reason=MANUAL,
            until_ms=None,
            note="wrong price",
            by=BY,
            since_ms=START_MS,
            waiting=3,
        )
    ]
    assert story.ledger.resume_page("1") is Lifted.MANUAL
    assert story.ledger.resume_page("1") is Lifted.NOTHING
    assert story.ledger.reader.pauses() == []


def test_a_resumed_page_sends_at_once(story: Story):
    """And a worker is woken for it."""
    job_id = story.enqueue()
    story.ledger.pause_page("1", by=BY)
    assert story.claim(answers_bell=True) == []
    assert story.rings(lambda: story.ledger.resume_page("1"))
    assert story.claim_ids() == [job_id]


def test_a_pause_with_a_time_ends_by_itself(story: Story):
    """To the millisecond; and nothing is left of it."""
    job_id = story.enqueue()
    story.ledger.pause_page("1", by=BY, for_seconds=7200)
    assert story.ledger.claim(1).wait_seconds == pytest.approx(7200, abs=0.002)
    story.wait(7199.999)
    assert story.claim_ids() == []
    story.wait(0.001)
    assert story.claim_ids() == [job_id]
    assert not story.client.exists(story.key("pauses"))


def test_a_page_may_be_paused_before_it_has_jobs(story: Story):
    """Nothing waits yet; what comes does."""
    assert story.ledger.pause_page("77", by=BY) == 0
    story.enqueue("77")
    assert story.claim_ids() == []


def test_calls_in_flight_end_normally(story: Story):
    """Neither success nor failure ends the operator's pause."""
    for _ in range(4):
        story.enqueue()
    claims = story.claim(3)
    story.ledger.pause_page("1", by=BY)
    assert story.record(claims[0], OutcomeClass.ACCEPTED)
    assert story.record(claims[1], OutcomeClass.TRANSIENT)
    assert story.record(claims[2], OutcomeClass.ACCEPTED)
    assert story.claim_ids() == []
    assert [pause.reason for pause in story.ledger.reader.pauses()] == [MANUAL]


def test_an_operators_pause_and_an_automatic_one_are_two(story: Story):
    """The operator's is lifted first; then the automatic one's probe may go at once."""
    for _ in range(3):
        story.enqueue()
    claim = only(story.claim(1))
    story.ledger.pause_page("1", by=BY)
    story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=900.0)
    assert [pause.reason for pause in story.ledger.reader.pauses()] == [MANUAL, "throttled"]
    assert story.ledger.resume_page("1") is Lifted.MANUAL
    assert story.claim() == []
    assert story.ledger.claim(1).wait_seconds == pytest.approx(900, abs=0.002)
    assert story.ledger.resume_page("1") is Lifted.AUTOMATIC
    assert len(story.claim()) == 1, "one probe"
    assert story.claim() == []


def test_a_new_token_does_not_end_an_operators_pause(story: Story):
    """It ends the pause of the refused token alone."""
    story.enqueue()
    story.enqueue()
    story.record(only(story.claim(1)), OutcomeClass.AUTH)
    story.ledger.pause_page("1", by=BY)
    story.ledger.resume({"1": "old-token"})
    assert story.claim() == []
    assert [pause.reason for pause in story.ledger.reader.pauses()] == [MANUAL]


def test_all_pages_may_be_paused(story: Story):
    """Nobody is woken meanwhile; pages paused for themselves stay so afterwards."""
    first = story.enqueue("1")
    story.enqueue("2")
    story.ledger.pause_page("2", by=BY)
    story.ledger.pause_all(reason="wrong campaign", by=BY)
    story.wait(10)
    assert not story.rings(story.sweep)
    assert not story.rings(lambda: story.enqueue("3"))
    found = story.ledger.claim(5)
    assert (found.claims, found.wait_seconds) == ([], None)
    everything, own = story.ledger.reader.pauses()
    assert (everything.page_id, everything.note, everything.waiting) == (
        ALL_PAGES,
        "wrong campaign",
        3,
    )
    assert own.page_id == "2"
    assert story.rings(story.ledger.resume_all)
    assert story.ledger.resume_all() is False
    assert first in story.claim_ids()
    assert story.counts()["queued"] == 1


def test_a_pause_of_all_pages_may_have_a_time(story: Story):
    """The sweep wakes somebody when it is over."""
    job_id = story.enqueue()
    story.sweep()
    story.ledger.pause_all(by=BY, for_seconds=60)
    story.wait(59)
    assert story.claim_ids() == []
    story.wait(1.001)
    assert story.rings(story.sweep)
    assert story.claim_ids() == [job_id]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda ledger: ledger.pause_page("", by=BY), "page_id"),
        (lambda ledger: ledger.pause_page("12x", by=BY), "page_id"),
        (lambda ledger: ledger.pause_page(12, by=BY), "page_id"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=0), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=-5), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=float("nan")), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=float("inf")), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds=1e9), "366 days"),
        (lambda ledger: ledger.pause_page("1", by=BY, for_seconds="2h"), "for_seconds"),
        (lambda ledger: ledger.pause_page("1", by=BY, reason="x" * 201), "reason"),
        (lambda ledger: ledger.pause_page("1", by=BY, reason="a\x1b[2Jb"), "reason"),
        (lambda ledger: ledger.pause_page("1", by="x\n"), "by"),
        (lambda ledger: ledger.pause_all(by=BY, for_seconds=-1), "for_seconds"),
        (lambda ledger: ledger.resume_page("x"), "page_id"),
        (lambda ledger: ledger.set_rate("x", 1, by=BY), "page_id"),
        (lambda ledger: ledger.set_rate("1", -1, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 1e6, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 1e-9, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", float("nan"), by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 10**400, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", True, by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", "5", by=BY), "rate"),
        (lambda ledger: ledger.set_rate("1", 5, 0, by=BY), "burst"),
        (lambda ledger: ledger.set_rate("1", 5, 10**6, by=BY), "burst"),
        (lambda ledger: ledger.set_rate("1", 5, 2.5, by=BY), "burst"),
        (lambda ledger: ledger.clear_rate("1 2"), "page_id"),
    ],
)
def test_a_wrong_request_is_named_and_changes_nothing(
    story: Story, call: Callable[[Any], object], named: str
):
    """Before anything is stored (design promise 10)."""
    before = set(story.client.scan_iter())
    with pytest.raises(InvalidRequest, match=named):
        call(story.ledger)
    assert set(story.client.scan_iter()) == before


# Rates


def test_a_page_may_have_a_rate_of_its_own(make_story: Callable[..., Story]):
    """The others keep the default."""
    story = make_story(page_rate=2.0, page_burst=1)
    story.ledger.set_rate("1", 10, 5, by=BY)
    assert story.ledger.reader.rates() == [
        PageRate(page_id="1", rate=10.0, burst=5, by=BY, at_ms=START_MS)
    ]
    for _ in range(30):
        story.enqueue("1")
        story.enqueue("2")
    counted = {"1": 0, "2": 0}
    for _ in range(101):
        for claim in story.claim():
            counted[claim.page_id] += 1
        story.wait(0.02)
    assert counted == {"1": 23, "2": 5}


def test_without_a_burst_the_default_holds(make_story: Callable[..., Story]):
    """As in the settings."""
    story = make_story(page_rate=2.0, page_burst=7)
    story.ledger.set_rate("1", 20, by=BY)
    assert only(story.ledger.reader.rates()).burst == 7


@pytest.mark.parametrize("rate", [None, 0], ids=["default", "no limit"])
def test_a_new_rate_holds_at_once(story: Story, rate: float | None):
    """Also where the old one had set the page's turn to the day after."""
    story.ledger.set_rate("1", 1 / 86_400, 1, by=BY)
    for _ in range(5):
        story.enqueue()
    assert len(story.claim(answers_bell=True)) == 1
    assert story.claim() == []
    if rate is None:
        assert story.rings(lambda: story.ledger.clear_rate("1"))
    else:
        assert story.rings(lambda: story.ledger.set_rate("1", rate, by=BY))
    assert len(story.claim()) == 4
    assert story.ledger.clear_rate("1") is (rate is not None)
    assert story.ledger.reader.rates() == []


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", '{"rate": -1, "burst": 1}', '{"rate": 1e300, "burst": 1}',
             '{"rate": 1, "burst": 0}', '{"rate": "x", "burst": []}', "[" * 2000]
)  # fmt: skip
def test_what_is_no_rate_is_the_default(make_story: Callable[..., Story], text: str):
    """Another client wrote it."""
    story = make_story(page_rate=2.0, page_burst=1)
    story.client.hset(story.key("rates"), "1", text)
    for _ in range(3):
        story.enqueue()
    assert len(story.claim()) == 1
    story.ledger.reader.rates()
