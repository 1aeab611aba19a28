"""When to ring: once for work that nobody looks at, and again if that was lost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from harasocial_dispatch.schemas import OutcomeClass, from_ms, parse_new_job

if TYPE_CHECKING:
    from .conftest import Story

START_MS = 1_769_851_800_000


def rings(story: Story, **options: Any) -> bool:
    """Enqueue one job; return whether to ring for it."""
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
    return story.rings(lambda: story.ledger.enqueue([parse_new_job(body, options)]))


def test_the_first_job_rings_and_the_next_do_not(story: Story):
    """A doorbell is out; one is enough to wake a worker."""
    assert [rings(story) for _ in range(5)] == [True, False, False, False, False]


def test_a_doorbell_that_nobody_answers_is_rung_again(story: Story):
    """After two seconds it must be taken for lost, by a sweep; enqueueing heaps up no more."""
    assert rings(story)
    story.wait(1.999)
    assert not rings(story)
    assert not story.rings(story.sweep)
    story.wait(0.001)
    assert story.rings(story.sweep)
    assert not story.rings(story.sweep)
    story.wait(2)
    assert not rings(story)
    assert story.rings(story.sweep)


def test_a_job_for_later_does_not_ring(story: Story):
    """There is nothing to send; the sweep rings when there is."""
    assert not rings(story, send_at=from_ms(START_MS + 60_000))
    assert not story.rings(story.sweep)
    story.wait(60)
    assert story.rings(story.sweep)


def test_a_claim_that_leaves_work_rings_for_another_worker(story: Story):
    """So that idle processes join in, one after the other."""
    for _ in range(10):
        rings(story)
    assert story.rings(lambda: story.claim(1, answers_bell=True))
    assert not story.rings(lambda: story.claim(1)), "that doorbell is out"
    assert story.rings(lambda: story.claim(1, answers_bell=True))
    assert not story.rings(lambda: story.claim(100, answers_bell=True))


def test_doorbells_do_not_heap_up_while_all_pumps_are_busy(story: Story):
    """One process answers one each 5 s, and rings for the rest; it does not drown in them."""
    rung = sum(rings(story) for _ in range(20))
    answered = 0
    for second in range(600):
        answers = second % 5 == 0 and answered < rung
        answered += answers
        rung += story.rings(partial(story.claim, 1, answers_bell=answers))
        rung += story.rings(story.sweep)
        story.wait(1)
        rings(story)
    assert 0 < rung - answered < 10


def test_doorbells_lost_together_are_rung_again_before_long(story: Story):
    """The broker was wiped; then a pump with nothing left to do starts the count anew."""
    rings(story)
    for _ in range(600):
        story.wait(1)
        story.sweep()
    waited = 0
    while not story.rings(story.sweep):
        story.wait(1)
        waited += 1
    assert waited <= 5
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=0.04)
    story.ledger.leave()
    assert rings(story)
    story.wait(2)
    assert story.rings(story.sweep)


def test_while_a_pump_looks_nobody_rings(story: Story):
    """It promised to look again within the time it named."""
    rings(story)
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=0.04)
    assert not rings(story)
    assert len(story.claim(10, looks_again_in_seconds=0.04)) == 1
    assert not story.rings(story.sweep)


def test_an_attentive_pump_is_woken_by_the_ledger(story: Story):
    """Once, however many jobs come before it looks; and only for jobs that may be sent now."""
    story.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    rings(story, send_at=from_ms(START_MS + 60_000))
    assert story.client.llen(story.key("wake")) == 0
    for _ in range(3):
        assert not rings(story)
    assert story.client.llen(story.key("wake")) == 1
    # Without an entry, this would last an hour.
    story.ledger.wait_for_jobs(3600)
    assert story.client.llen(story.key("wake")) == 0


def test_an_attentive_pump_that_cannot_take_everything_wakes_another(story: Story):
    """The other waits as well."""
    story.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    for _ in range(3):
        rings(story)
    story.ledger.wait_for_jobs(3600)
    assert len(story.claim(1, looks_again_in_seconds=60.0)) == 1
    assert story.client.llen(story.key("wake")) == 1


@pytest.mark.parametrize("value", ["1", b"\xff"])
def test_a_wake_list_of_another_type_is_repaired(story: Story, value: str | bytes):
    """The pump looks by itself until the next script replaces it."""
    story.client.set(story.key("wake"), value)
    story.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    story.ledger.wait_for_jobs(3600)
    rings(story)
    assert story.client.llen(story.key("wake")) == 1


def test_a_pump_that_breaks_its_promise_is_not_waited_for(story: Story):
    """It may have been killed."""
    rings(story)
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=0.04)
    story.wait(0.1)
    assert rings(story)


def test_a_pump_that_leaves_rings_for_what_has_come(story: Story):
    """And whoever enqueues from then on rings again."""
    rings(story)
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    assert not story.rings(story.ledger.leave), "nothing is ready"
    assert rings(story)
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    assert not rings(story)
    assert story.rings(story.ledger.leave)


def test_a_pump_that_stops_looking_after_a_claim_says_so(story: Story):
    """With no promise to look again, the next job rings."""
    rings(story)
    story.ledger.claim(10, answers_bell=True, looks_again_in_seconds=60.0)
    story.ledger.claim(10)
    assert rings(story)


def test_a_paused_lane_rings_for_nobody(make_story: Callable[..., Story]):
    """Until it opens."""
    story = make_story()
    rings(story)
    rings(story)
    (claim,) = story.claim(1, answers_bell=True)
    story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    story.wait(10)
    assert not story.rings(story.sweep)
    assert not story.rings(story.ledger.leave)
    story.wait(20)
    assert story.rings(story.sweep)


@pytest.mark.parametrize("bell", ["", "soon", "attentive ", "-1", "9 1e400", f"{START_MS + 1} 1"])
def test_a_bell_of_other_hands_is_taken_for_lost(story: Story, bell: str):
    """Or was rung before the clock was set back; it must not silence everybody."""
    story.client.set(story.key("bell"), bell)
    rings(story)
    assert story.rings(story.sweep)
