"""Failed jobs that another client, or a Redis short of memory, deleted soon leave the counts."""

from __future__ import annotations

from collections.abc import Callable

from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.schemas import State
from support.scenario import Scenario


def test_a_deleted_job_leaves_every_count(scenario: Scenario) -> None:
    """It leaves the counts of its code and its page before its retention ends."""
    deleted, kept = scenario.fail("1", "551"), scenario.fail("2", "100")
    scenario.client.delete(scenario.key(f"job:{deleted}"))
    for _ in range(50):
        scenario.sweep()
    assert scenario.ledger.reader.count_by_error_code().by_name == {"100": 1}
    assert scenario.ledger.reader.count_by_page(JobFilter()).by_name == {"2": 1}
    assert scenario.counts() == {"failed": 1}
    assert scenario.state(kept) is State.FAILED


def test_it_is_found_among_thousands(scenario: Scenario) -> None:
    """Each sweep checks some entries, from a random position."""
    ids = [f"job-{number}" for number in range(1000)]
    fields = {"state": "failed", "page_id": "1", "error_code": "551"}
    for job_id in ids:
        scenario.client.hset(scenario.key(f"job:{job_id}"), mapping=fields)
    for index in ("failed", "failed:551", "failed_on:1"):
        scenario.client.zadd(scenario.key(index), dict.fromkeys(ids, scenario.clock_ms()))
    for name, value in {"failed_codes": "551", "failed_pages": "1"}.items():
        scenario.client.zadd(scenario.key(name), {value: scenario.clock_ms()})
    scenario.client.delete(scenario.key("job:job-500"))
    for _ in range(100):
        scenario.sweep()
    assert scenario.ledger.reader.count_by_error_code().by_name == {"551": 999}
    assert scenario.ledger.reader.count_by_page(JobFilter()).by_name == {"1": 999}
    assert scenario.counts() == {"failed": 999}


def test_nothing_is_left_of_it_after_its_retention(make_scenario: Callable[..., Scenario]) -> None:
    """Its hash with the code and page is missing; the indexes are repaired without it."""
    scenario = make_scenario(failed_ttl_seconds=3600.0)
    scenario.client.delete(scenario.key(f"job:{scenario.fail('1', '551')}"))
    scenario.wait(3601)
    for _ in range(3):
        scenario.sweep()
    assert list(scenario.client.keys(scenario.key("failed*"))) == []
