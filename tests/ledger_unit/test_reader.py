"""Reading the ledger: filters, counts and lanes. Reading changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.schemas import OutcomeClass, State, from_ms
from support.scenario import Scenario

START = from_ms(1_769_851_800_000)


def ids(scenario: Scenario, limit: int = 100, **conditions: Any) -> list[str]:
    return [record.job_id for record in scenario.ledger.reader.find(JobFilter(**conditions), limit)]


@pytest.fixture
def one_of_each(scenario: Scenario) -> dict[State, str]:
    """A job in every state, on page 1."""
    made = {State.SENT: scenario.enqueue()}
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.ACCEPTED)
    made[State.FAILED] = scenario.fail()
    made[State.RETRYING] = scenario.enqueue()
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.TRANSIENT)
    made[State.SENDING] = scenario.enqueue()
    assert len(scenario.claim()) == 1
    made[State.CANCELLED] = scenario.enqueue()
    scenario.ledger.cancel([made[State.CANCELLED]])
    made[State.QUEUED] = scenario.enqueue()
    made[State.SCHEDULED] = scenario.enqueue(send_at=START + timedelta(days=1))
    assert {state: scenario.state(job_id) for state, job_id in made.items()} == {
        state: state for state in State
    }
    return made


@pytest.mark.parametrize("state", State)
def test_jobs_are_found_by_state(
    scenario: Scenario, one_of_each: dict[State, str], state: State
) -> None:
    """A page can be given too; other pages have no jobs."""
    assert ids(scenario, states=(state,)) == [one_of_each[state]]
    assert ids(scenario, states=(state,), page_ids=("1",)) == [one_of_each[state]]
    assert ids(scenario, states=(state,), page_ids=("2",)) == []


def test_without_a_state_every_job_is_found_once(
    scenario: Scenario, one_of_each: dict[State, str]
) -> None:
    """A canceled job whose id is still in its lane is found once too."""
    assert sorted(ids(scenario)) == sorted(one_of_each.values())


def test_of_a_long_lane_the_latest_jobs_are_found(scenario: Scenario) -> None:
    """Not the jobs that are sent next; if the limit allows, each job once."""
    waiting = [scenario.enqueue() for _ in range(505)]
    scenario.clock.shift(60)
    later = scenario.enqueue()
    scenario.clock.shift(60)
    latest = scenario.enqueue()

    assert ids(scenario, limit=2, states=(State.QUEUED,)) == [latest, later]
    assert sorted(ids(scenario, limit=1000)) == sorted([*waiting, later, latest])


def test_counts_are_by_state(scenario: Scenario, one_of_each: dict[State, str]) -> None:
    """There is one job in each state."""
    assert scenario.ledger.reader.count_states() == dict.fromkeys(State, 1)
    assert scenario.recount() == {state.value: 1 for state in State}


def test_an_empty_ledger_counts_nothing(scenario: Scenario) -> None:
    """All states are listed."""
    assert scenario.ledger.reader.count_states() == dict.fromkeys(State, 0)
    assert scenario.ledger.reader.count_by_error_code().by_name == {}
    assert scenario.ledger.reader.waiting_by_page() == {}
    assert scenario.ledger.reader.pauses() == []
    assert ids(scenario) == []
    assert scenario.ledger.reader.get("") is None


@pytest.fixture
def failures(scenario: Scenario) -> dict[str, str]:
    """Four failed jobs, one per minute: two pages, two error codes."""
    made: dict[str, str] = {}
    for page_id, error_code in (("1", "551"), ("1", "190"), ("2", "551"), ("2", "551")):
        made[f"{page_id}:{error_code}:{len(made)}"] = scenario.fail(page_id, error_code)
        scenario.wait(60)
    return made


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [3, 2, 1, 0]),
        ({"error_codes": ("551",)}, [3, 2, 0]),
        ({"error_codes": ("190",)}, [1]),
        ({"error_codes": ("unheard",)}, []),
        ({"page_ids": ("1",)}, [1, 0]),
        ({"page_ids": ("2",)}, [3, 2]),
        ({"page_ids": ("1",), "error_codes": ("551",)}, [0]),
        ({"error_codes": ("551", "190", "551")}, [3, 2, 1, 0]),
        ({"page_ids": ("2", "1"), "error_codes": ("190", "unheard")}, [1]),
        ({"page_ids": ("2",), "error_codes": ("190",)}, []),
        ({"since": START + timedelta(seconds=60)}, [3, 2, 1]),
        ({"since": START + timedelta(seconds=60.001)}, [3, 2]),
        ({"until": START + timedelta(seconds=60)}, [1, 0]),
        ({"since": START + timedelta(seconds=60), "until": START + timedelta(seconds=120)}, [2, 1]),
        ({"since": START + timedelta(seconds=60), "error_codes": ("551",)}, [3, 2]),
        ({"since": START + timedelta(days=1)}, []),
    ],
)
def test_failed_jobs_are_found_by_code_page_and_time(
    scenario: Scenario, failures: dict[str, str], conditions: dict[str, Any], expected: list[int]
) -> None:
    """The latest come first; the times are those of the failures (design promise 12)."""
    made = list(failures.values())
    wanted = [made[number] for number in expected]
    assert ids(scenario, states=(State.FAILED,), **conditions) == wanted
    pages = scenario.ledger.reader.failed_pages(JobFilter(**conditions))
    found = [record for page in pages for record in page.records]
    assert [record.job_id for record in found] == wanted
    assert ids(scenario, limit=2, states=(State.FAILED,), **conditions) == wanted[:2]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"since": datetime(2026, 1, 31)}, "since has no time zone: 2026-01-31 00:00:00"),
        ({"until": datetime(2026, 1, 31)}, "until has no time zone"),
        (
            {"since": START + timedelta(hours=1), "until": START},
            r"since \(2026-01-31 10:30:00\+00:00\) is after until \(2026-01-31 09:30:00\+00:00\)",
        ),
    ],
)
def test_a_range_of_times_that_means_nothing_is_refused(
    scenario: Scenario, conditions: dict[str, Any], message: str
) -> None:
    """A naive time depends on the host, and an empty range matches nothing."""
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    with pytest.raises(ValueError, match=message):
        producer.find_jobs(**conditions)
    with pytest.raises(ValueError, match=message):
        producer.iterate_failed(**conditions)
    if "until" not in conditions:
        for page_id in (None, "1"):
            with pytest.raises(ValueError, match=message):
                producer.count_errors(page_id=page_id, **conditions)


def test_one_moment_is_a_range(scenario: Scenario, failures: dict[str, str]) -> None:
    """Both bounds are inclusive."""
    moment = START + timedelta(seconds=60)
    assert ids(scenario, since=moment, until=moment) == [list(failures.values())[1]]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"error_code": "190"}, [1]),
        ({"error_code": ["190", "unheard"]}, [1]),
        ({"error_code": iter(("190", "551")), "page_id": ("1", "3")}, [1, 0]),
        ({"state": [State.FAILED, "sent"]}, [3, 2, 1, 0]),
        ({"state": "sent"}, []),
    ],
)
def test_a_filter_has_one_value_or_several(
    scenario: Scenario, failures: dict[str, str], conditions: dict[str, Any], expected: list[int]
) -> None:
    """A string is one value; several values match any of them."""
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    made = list(failures.values())
    found = [record.job_id for record in producer.find_jobs(**conditions)]
    assert found == [made[number] for number in expected]


@pytest.mark.parametrize(
    "conditions", [{"error_code": []}, {"page_id": ()}, {"page_id": [str(n) for n in range(101)]}]
)
def test_no_value_or_very_many_are_refused(scenario: Scenario, conditions: dict[str, Any]) -> None:
    """As "no condition", an empty list would match every job, also in a replay."""
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    with pytest.raises(ValueError, match=r"has no value|has 101 values; at most 100"):
        producer.find_jobs(**conditions)
    with pytest.raises(ValueError, match=r"has no value|has 101 values; at most 100"):
        producer.iterate_failed(**conditions)


def test_an_error_code_alone_means_failed_jobs(
    scenario: Scenario, failures: dict[str, str]
) -> None:
    """Jobs that wait for a retry with the same code do not match."""
    scenario.enqueue("3")
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.TRANSIENT, error_code="551")
    assert len(ids(scenario, error_codes=("551",))) == 3
    assert ids(scenario, error_codes=("551",), states=(State.RETRYING,)) == [claim.job_id]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, {"551": 3, "190": 1}),
        ({"page_ids": ("1",)}, {"190": 1, "551": 1}),
        ({"page_ids": ("2",)}, {"551": 2}),
        ({"page_ids": ("9",)}, {}),
        ({"since": START + timedelta(seconds=100)}, {"551": 2}),
        ({"since": START + timedelta(seconds=60), "page_ids": ("1",)}, {"190": 1}),
    ],
)
def test_errors_are_counted_by_code(
    scenario: Scenario,
    failures: dict[str, str],
    conditions: dict[str, Any],
    expected: dict[str, int],
) -> None:
    """The most frequent come first."""
    found = scenario.ledger.reader.count_by_error_code(JobFilter(**conditions)).by_name
    assert list(found.items()) == list(expected.items())


def test_a_replay_takes_a_job_out_of_every_index(
    scenario: Scenario, failures: dict[str, str]
) -> None:
    """The job is no longer failed. If it fails again, it is found by its new code."""
    job_id = failures["1:190:1"]
    scenario.ledger.replay([job_id])
    assert scenario.ledger.reader.count_by_error_code().by_name == {"551": 3}
    assert ids(scenario, page_ids=("1",), states=(State.FAILED,)) == [failures["1:551:0"]]
    (claim,) = scenario.claim()
    scenario.record(claim, OutcomeClass.PERMANENT, error_code="100")
    assert ids(scenario, error_codes=("190",)) == []
    assert ids(scenario, error_codes=("100",)) == [job_id]


@pytest.mark.parametrize("code", ["", "a:b", "{x}", "*", "10/2018278", "đã lỗi", "x" * 64])
def test_any_error_code_is_an_index_of_its_own(scenario: Scenario, code: str) -> None:
    """The API may return any code."""
    job_id = scenario.fail(error_code=code or "none")
    assert scenario.ledger.reader.count_by_error_code().by_name == {code or "none": 1}
    assert ids(scenario, error_codes=(code or "none",)) == [job_id]


def test_more_jobs_than_one_round_trip_reads_are_all_found(scenario: Scenario) -> None:
    """The limit still applies."""
    for _ in range(3):
        for _ in range(400):
            scenario.enqueue()
    assert len(ids(scenario, limit=5000, states=(State.QUEUED,))) == 1200
    assert len(ids(scenario, limit=700)) == 700
    assert scenario.ledger.reader.waiting_by_page() == {"1": 1200}


def test_waiting_jobs_are_counted_by_page(scenario: Scenario) -> None:
    """Urgent jobs are included; the longest lane comes first."""
    for page, count in (("1", 1), ("2", 3), ("3", 2)):
        for number in range(count):
            scenario.enqueue(page, urgent=number == 0)
    assert list(scenario.ledger.reader.waiting_by_page().items()) == [("2", 3), ("3", 2), ("1", 1)]
    assert list(scenario.ledger.reader.waiting_by_page(limit=1)) == ["2"]


def test_jobs_that_wait_are_found_by_the_time_of_their_enqueueing(scenario: Scenario) -> None:
    """A job that has not finished has no other time."""
    early = scenario.enqueue()
    scenario.wait(60)
    late = scenario.enqueue()
    between: datetime = START + timedelta(seconds=30)
    assert ids(scenario, since=between) == [late]
    assert ids(scenario, until=between) == [early]


def test_reading_changes_nothing(scenario: Scenario, one_of_each: dict[State, str]) -> None:
    """Neither a key nor the bell changes."""

    def everything() -> dict[str, bytes]:
        return {name: scenario.client.dump(name) for name in scenario.client.scan_iter("*")}

    before = everything()
    reader = scenario.ledger.reader
    reader.find(JobFilter(), 10)
    list(reader.failed_pages(JobFilter(page_ids=("1",), error_codes=("551",))))
    reader.get(one_of_each[State.SENT])
    reader.count_by_error_code()
    reader.count_states()
    reader.waiting_by_page()
    reader.pauses()
    assert everything() == before


def test_indexes_without_jobs_show_nothing(make_scenario: Callable[..., Scenario]) -> None:
    """Ids whose jobs another client deleted are skipped without an error."""
    scenario = make_scenario()
    job_id = scenario.fail()
    scenario.client.delete(scenario.key(f"job:{job_id}"))
    scenario.client.set(scenario.key("job:odd"), "text")
    scenario.client.zadd(scenario.key("failed"), {"odd": 1})
    assert ids(scenario, states=(State.FAILED,)) == []
    assert scenario.ledger.reader.failed_page(JobFilter()).records == []
