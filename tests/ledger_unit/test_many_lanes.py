"""Many lanes, or many jobs in one: jobs that cannot be sent do not delay jobs that can."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from unittest.mock import patch

import pytest
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.ledger.scripts import Scripts
from harasocial_dispatch.schemas import State, parse_new_job
from support.scenario import QuickScenario, Scenario


@pytest.fixture
def scenario(quick_scenario: QuickScenario) -> QuickScenario:
    """Return a scenario on a real server, because these tests take many steps."""
    return quick_scenario


@contextmanager
def round_trips(scenario: Scenario) -> Iterator[list[Any]]:
    """Collect the commands sent to Redis; a pipeline counts once."""
    asked: list[Any] = []
    execute, pipeline = scenario.client.execute_command, scenario.client.pipeline
    run = Scripts.run

    def script(scripts: Scripts, connection: Any, *args: Any) -> Any:
        asked.append(args)
        return run(scripts, connection, *args)

    def one(*args: Any, **options: Any) -> Any:
        asked.append(args)
        return execute(*args, **options)

    def several(*args: Any, **options: Any) -> Any:
        asked.append("pipeline")
        return pipeline(*args, **options)

    with (
        patch.object(scenario.client, "execute_command", one),
        patch.object(scenario.client, "pipeline", several),
        patch.object(Scripts, "run", script),
    ):
        yield asked


def pause(scenario: Scenario, page_id: str, seconds: float = 900.0) -> None:
    """Pause a page like a refused token."""
    text = {
        "reason": "auth",
        "error_code": "190",
        "level": 1,
        "failures": 0,
        "until_ms": scenario.clock_ms() + round(seconds * 1000),
        "token_fingerprint": "old-token",
    }
    scenario.client.hset(scenario.key("pauses"), page_id, json.dumps(text))


def test_without_pages_no_lane_is_counted(scenario: Scenario) -> None:
    """If no page is paused, a list of pauses does not read all lanes."""
    scenario.enqueue("1")
    reader = scenario.ledger.reader
    assert reader.count_waiting([]) == {}
    assert reader.count_waiting(["1", "2"]) == {"1": 1, "2": 0}


def test_one_claim_reaches_lanes_behind_many_paused_ones(scenario: Scenario) -> None:
    """300 pages with a refused token get new jobs; the job of another page does not wait."""
    for page in range(100, 400):
        pause(scenario, str(page))
        scenario.enqueue(str(page))
    scenario.wait(0.01)
    good = scenario.enqueue("9")
    assert scenario.claim_ids(8) == [good]


def test_one_claim_reaches_lanes_behind_many_emptied_ones(scenario: Scenario) -> None:
    """The jobs of 200 pages were canceled."""
    scenario.ledger.cancel([scenario.enqueue(str(page)) for page in range(100, 300)])
    scenario.wait(0.01)
    good = scenario.enqueue("9")
    assert scenario.claim_ids(8) == [good]


def test_a_canceled_campaign_delays_no_other_page(scenario: Scenario) -> None:
    """After a claim has scanned its limit of ids, the other lanes keep their turn."""
    canceled = [scenario.enqueue("1") for _ in range(1500)]
    scenario.ledger.cancel(canceled)
    scenario.wait(0.01)
    good = scenario.enqueue("2")
    assert scenario.claim_ids(8) + scenario.claim_ids(8) == [good]


def test_many_possible_poisons_delay_no_other_page(scenario: Scenario) -> None:
    """700 jobs of a dead worker are sent one at a time; another page does not wait."""
    for _ in range(700):
        scenario.enqueue("1")
    while scenario.claim(1000):
        pass
    scenario.wait(scenario.settings.lease_seconds + 1)
    for _ in range(2):
        for _ in range(2):
            scenario.sweep()
        scenario.wait(60)
    assert scenario.counts()["queued"] == 700
    good = scenario.enqueue("2")
    claims = scenario.claim(8, has_possible_poison=True)
    assert [claim.job_id for claim in claims] == [good]


def test_the_latest_queued_jobs_of_many_lanes_take_a_few_round_trips(scenario: Scenario) -> None:
    """Two jobs on each of 1000 pages, and a page with many more: the latest come first."""
    for page in range(2000, 3000):
        scenario.enqueue(str(page))
    for _ in range(500):
        scenario.enqueue("1")
    scenario.wait(1)
    latest = []
    for page in range(2000, 3000, 100):
        latest.append(scenario.enqueue(str(page), urgent=page == 2500))
        scenario.wait(1)
    with round_trips(scenario) as asked:
        found = scenario.ledger.reader.find(JobFilter(states=(State.QUEUED,)), 10)
    assert [record.job_id for record in found] == latest[::-1]
    assert len(asked) < 50


def test_no_queued_job_is_left_out_of_a_search(scenario: Scenario) -> None:
    """Its position in the lane does not matter, nor do invalid ids of another client."""
    first = scenario.enqueue("1")
    made = [scenario.enqueue(page, urgent=urgent) for urgent in (True, False) for page in "1234"]
    scenario.wait(60)
    made += [scenario.enqueue("1") for _ in range(450)]
    scenario.client.set(scenario.key("ready:5"), "no list")
    scenario.client.zadd(scenario.key("lanes"), {"5": 1, "6": 1})
    found = scenario.ledger.reader.find(JobFilter(states=(State.QUEUED,)), 1000)
    assert {record.job_id for record in found} == {first, *made}
    oldest = scenario.get(first).enqueued_at
    assert isinstance(oldest, datetime)
    only_old = scenario.ledger.reader.find(JobFilter(states=(State.QUEUED,), until=oldest), 1000)
    assert {record.job_id for record in only_old} == {first, *made[:8]}


def test_one_call_may_store_more_jobs_of_a_page_than_one_command_takes(scenario: Scenario) -> None:
    """They keep their order, with urgent jobs first."""
    body = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "1"}
    jobs = [parse_new_job(body, {"urgent": number % 4 == 0}) for number in range(9000)]
    ids = scenario.ledger.enqueue(jobs).job_ids
    urgent = ids[::4]
    ordinary = [ids[number] for number in range(9000) if number % 4]
    assert scenario.client.lrange(scenario.key("urgent:1"), 0, -1) == urgent
    assert scenario.client.lrange(scenario.key("ready:1"), 0, -1) == ordinary
