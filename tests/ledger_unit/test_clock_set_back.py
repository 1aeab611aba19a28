"""The clock of Redis' host is set back: what was written before holds nothing up for as long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from harasocial_dispatch.schemas import OutcomeClass

if TYPE_CHECKING:
    from .conftest import Story

BACK = pytest.mark.parametrize("seconds", [2, 600, 86_400], ids=["2s", "10min", "1day"])


def set_back(story: Story, seconds: float) -> None:
    """Set the clock back between two sweeps; sweeps come every second."""
    story.sweep()
    story.wait(-seconds)
    story.sweep()


@BACK
def test_waiting_jobs_go_on_at_once(story: Story, seconds: int):
    """Lanes that were served before have a time to come."""
    ids = [story.enqueue(page) for page in "121212"]
    first = story.claim_ids(2)
    set_back(story, seconds)
    assert sorted(first + story.claim_ids()) == sorted(ids)


@BACK
def test_somebody_is_woken_for_them(story: Story, seconds: int):
    """Whatever the bell says."""
    story.enqueue()
    story.sweep()
    story.client.set(story.key("bell"), "attentive", px=3_600_000)
    story.wait(-seconds)
    assert story.rings(story.sweep)


@pytest.mark.parametrize("seconds", [600, 86_400])
def test_a_pause_is_neither_shorter_nor_much_longer(story: Story, seconds: int):
    """It begins anew: asked for 30 s, 10 s of which are over, it lasts 30 s more."""
    for _ in range(2):
        story.enqueue()
    (claim,) = story.claim(1)
    story.record(claim, OutcomeClass.THROTTLED, retry_after_seconds=30.0)
    story.wait(10)
    set_back(story, seconds)
    assert story.claim_ids() == []
    story.wait(29)
    assert story.claim_ids() == []
    story.wait(1)
    assert len(story.claim_ids()) == 1


@BACK
def test_a_page_rate_holds_on(make_story: Callable[..., Story], seconds: int):
    """4 a second, 3 at once (a burst of 4): what was spent stays spent, for as long as it takes."""
    story = make_story(page_rate=4.0, page_burst=4)
    for _ in range(10):
        story.enqueue()
    assert len(story.claim()) == 3
    set_back(story, seconds)
    found = []
    for _ in range(6):
        found.append(len(story.claim()))
        story.wait(0.25)
    assert found == [0, 1, 1, 1, 1, 1]
