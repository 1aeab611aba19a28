"""Many lanes, or many jobs in one: what cannot go out holds up nothing that can."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Story


def pause(story: Story, page_id: str, seconds: float = 900.0) -> None:
    """Pause a page as a refused token does."""
    text = {
        "reason": "auth",
        "error_code": "190",
        "level": 1,
        "failures": 0,
        "until_ms": story.clock_ms() + round(seconds * 1000),
        "token_fingerprint": "old-token",
    }
    story.client.hset(story.key("pauses"), page_id, json.dumps(text))


def test_one_claim_looks_behind_many_paused_lanes(story: Story):
    """Jobs come in for 300 pages whose token was refused; another page's job does not wait."""
    for page in range(100, 400):
        pause(story, str(page))
        story.enqueue(str(page))
    story.wait(0.01)
    good = story.enqueue("9")
    assert story.claim_ids(8) == [good]


def test_one_claim_looks_behind_many_emptied_lanes(story: Story):
    """200 pages' jobs were called off."""
    story.ledger.cancel([story.enqueue(str(page)) for page in range(100, 300)])
    story.wait(0.01)
    good = story.enqueue("9")
    assert story.claim_ids(8) == [good]


def test_a_campaign_called_off_holds_up_no_other_page(story: Story):
    """A claim that has spent itself on its places in the lane leaves the others' turn as it was."""
    called_off = [story.enqueue("1") for _ in range(1500)]
    story.ledger.cancel(called_off)
    story.wait(0.01)
    good = story.enqueue("2")
    assert story.claim_ids(8) + story.claim_ids(8) == [good]


def test_many_suspects_hold_up_no_other_page(story: Story):
    """700 jobs whose worker died go out one at a time; a page behind them does not wait."""
    for _ in range(700):
        story.enqueue("1")
    while story.claim(1000):
        pass
    story.wait(story.settings.lease_seconds + 1)
    for _ in range(2):
        for _ in range(2):
            story.ledger.sweep()
        story.wait(60)
    assert story.counts()["queued"] == 700
    good = story.enqueue("2")
    claims = story.claim(8, has_suspect=True)
    assert [claim.job_id for claim in claims] == [good]
