"""Failed jobs that other hands, or a Redis short of memory, deleted: not counted for long."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.schemas import State

if TYPE_CHECKING:
    from .conftest import Story


def test_a_deleted_job_leaves_every_count(story: Story):
    """Neither its code nor its page counts it; its retention need not end for that."""
    deleted, kept = story.fail("1", "551"), story.fail("2", "100")
    story.client.delete(story.key(f"job:{deleted}"))
    for _ in range(50):
        story.sweep()
    assert story.ledger.reader.count_by_error_code().by_name == {"100": 1}
    assert story.ledger.reader.count_by_page(JobFilter()).by_name == {"2": 1}
    assert story.counts() == {"failed": 1}
    assert story.state(kept) is State.FAILED


def test_it_is_found_among_thousands(story: Story):
    """Each sweep checks some of them, wherever it stands."""
    ids = [f"job-{number}" for number in range(1000)]
    fields = {"state": "failed", "page_id": "1", "error_code": "551"}
    for job_id in ids:
        story.client.hset(story.key(f"job:{job_id}"), mapping=fields)
    for index in ("failed", "failed:551", "failed_on:1"):
        story.client.zadd(story.key(index), dict.fromkeys(ids, story.clock_ms()))
    for name, value in {"failed_codes": "551", "failed_pages": "1"}.items():
        story.client.zadd(story.key(name), {value: story.clock_ms()})
    story.client.delete(story.key("job:job-500"))
    for _ in range(100):
        story.sweep()
    assert story.ledger.reader.count_by_error_code().by_name == {"551": 999}
    assert story.ledger.reader.count_by_page(JobFilter()).by_name == {"1": 999}
    assert story.counts() == {"failed": 999}


def test_nothing_is_left_of_it_after_its_retention(make_story: Callable[..., Story]):
    """Its hash told by which code and page it was indexed; these indexes are mended without it."""
    story = make_story(failed_ttl_seconds=3600.0)
    story.client.delete(story.key(f"job:{story.fail('1', '551')}"))
    story.wait(3601)
    for _ in range(3):
        story.sweep()
    assert list(story.client.keys(story.key("failed*"))) == []
