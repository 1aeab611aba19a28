"""Replays: the counts of a plan, the jobs of a run, and outages during it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from harasocial_dispatch.ledger import MAX_VALUES, JobFilter
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.producer.bulk_replay import Replay
from harasocial_dispatch.schemas import OutcomeClass, QueueUnavailable, State
from harasocial_dispatch.schemas.error_codes import ReplayKind
from support.scenario import Scenario


@pytest.fixture
def make(scenario: Scenario) -> Callable[..., Replay]:
    """Return a function that creates replays of the scenario's jobs."""
    return lambda **which: Replay(scenario.ledger, **which)


def replayed(replay: Replay, **options: Any) -> list[str]:
    return [job_id for batch in replay.run(**options) for job_id in batch.job_ids]


def fail_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *numbers: int) -> None:
    """Let some calls of a method fail (numbered from 1), like during an outage of Redis."""
    call, count = getattr(owner, name), 0

    def failing(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count in numbers:
            raise QueueUnavailable("Redis is away")
        return call(*args, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    "which",
    [
        {},
        {"wanted": JobFilter(error_codes=("551", "190"))},
        {"wanted": JobFilter(page_ids=("1", "2"))},
        {"wanted": JobFilter(error_codes=("551", "190"), page_ids=("1", "2"))},
        {"text": "__HRF"},
        "ids",
    ],
)
def test_a_plan_counts_what_a_run_replays(
    scenario: Scenario, make: Callable[..., Replay], which: Any
) -> None:
    """For every selection of jobs, the count, the causes and the run match."""
    ids = [scenario.fail(*job) for job in [("1", "551"), ("1", "190"), ("2", "551")]]
    replay = make(job_ids=ids) if which == "ids" else make(**which)

    plan = replay.plan()

    assert plan.total == 3
    assert [(cause.error_code, cause.count) for cause in plan.causes] == [("551", 2), ("190", 1)]
    assert {scenario.state(job_id) for job_id in ids} == {State.FAILED}
    assert sorted(replayed(replay)) == sorted(ids)
    assert {scenario.state(job_id) for job_id in ids} == {State.QUEUED}


KINDS = {
    "passing": ReplayKind.PASSING,
    "fixable": ReplayKind.FIXABLE,
    "never": ReplayKind.NEVER,
}


@pytest.mark.parametrize("text", ["", "__hrf"])
@pytest.mark.parametrize("wanted", [None, JobFilter(page_ids=("1",))])
@pytest.mark.parametrize("names", [["passing"], ["fixable"], ["passing", "fixable"], ["never"]])
def test_a_replay_of_some_kinds_takes_the_jobs_whose_codes_are_of_them(
    scenario: Scenario, make: Callable[..., Replay], names: list[str], wanted: Any, text: str
) -> None:
    """Unknown codes are `fixable`: a person must check them first."""
    codes = {"http_503": "passing", "timeout": "passing", "190": "fixable", "E7": "fixable"}
    codes |= {"551": "never", "10/2018278": "never"}
    ids = {(code, page): scenario.fail(page, code) for code in codes for page in ("1", "2")}
    replay = make(kinds=[KINDS[name] for name in names], wanted=wanted, text=text)

    plan = replay.plan()
    done = replayed(replay)

    expected = {
        job_id
        for (code, page), job_id in ids.items()
        if codes[code] in names and (wanted is None or page == "1")
    }
    assert set(done) == expected
    assert len(done) == plan.total == len(expected)
    assert [group.kind.value for group in plan.kinds] == names


def test_a_replay_of_a_kind_that_no_job_has_takes_none(
    scenario: Scenario, make: Callable[..., Replay]
) -> None:
    """No matching code is not the same as no condition."""
    scenario.fail("1", "551")
    replay = make(kinds=[ReplayKind.PASSING])
    assert replay.plan().total == 0
    assert replayed(replay) == []
    assert scenario.ledger.reader.count_failed() == 1


def test_a_kind_may_have_more_codes_than_a_filter(
    scenario: Scenario, make: Callable[..., Replay]
) -> None:
    """An API may put an id into each code, so that each job has its own code."""
    ids = {scenario.fail("1", f"E{number}") for number in range(MAX_VALUES + 5)}
    replay = make(kinds=[ReplayKind.FIXABLE])
    assert replay.plan().total == len(ids)
    assert set(replayed(replay)) == ids


def test_a_plan_warns_of_what_a_replay_would_do(
    scenario: Scenario, make: Callable[..., Replay]
) -> None:
    """The warnings exist in each language, and only if they apply."""
    ids = [scenario.fail("1", code) for code in ("551", "551", "timeout", "190", "http_503")]
    by_ids, by_filter = make(job_ids=ids).plan(), make().plan()
    assert (
        by_ids.warnings("en")
        == by_filter.warnings("en")
        == [
            "2 jobs should not be replayed: they would fail again, or reach a person twice.",
            "1 job may have been sent although it failed: a replay may send it twice.",
            "1 job needs attention before a replay: see what to do about its error code.",
        ]
    )
    assert [text.startswith(("Không", "1 tin")) for text in by_ids.warnings("vi")] == [True] * 3
    assert [group.name("vi") for group in by_ids.kinds] == [
        "Nên thử gửi lại",
        "Xử lý xong rồi gửi lại",
        "Không gửi lại",
    ]
    assert make(job_ids=ids[-1:]).plan().warnings("en") == []


def test_jobs_named_by_id_that_are_not_failed_are_refused(
    scenario: Scenario, make: Callable[..., Replay]
) -> None:
    """The plan has their states. The run reports jobs that stop being failed later."""
    failed, later, queued = scenario.fail(), scenario.fail(), scenario.enqueue("2")
    replay = make(job_ids=[failed, queued, "gone", failed, later])
    assert replay.plan().refused == {queued: State.QUEUED, "gone": None}
    scenario.ledger.replay([later])
    (batch,) = replay.run()
    assert (batch.job_ids, batch.refused) == ([failed], {later: State.QUEUED})


@pytest.mark.parametrize("is_planned", [True, False])
@pytest.mark.parametrize("rate", [None, 1e6])
def test_a_job_that_fails_again_is_not_replayed_twice(
    scenario: Scenario, make: Callable[..., Replay], is_planned: bool, rate: float | None
) -> None:
    """Neither the same run nor a run that continues after an outage replays it again."""
    ids = {scenario.fail() for _ in range(3)}
    replay = make()
    if is_planned:
        replay.plan()
    assert set(replayed(replay, rate=rate)) == ids
    scenario.wait(1)
    for claim in scenario.claim():
        scenario.record(claim, OutcomeClass.PERMANENT, error_code="551")
    assert scenario.ledger.reader.count_failed() == 3
    assert replayed(replay) == []


@pytest.mark.parametrize(("reads", "replays"), [((1, 2), ()), ((), (1, 2)), ((2,), (2,))], ids=str)
def test_an_outage_shorter_than_its_retries_does_not_stop_it(
    scenario: Scenario,
    make: Callable[..., Replay],
    monkeypatch: pytest.MonkeyPatch,
    reads: tuple[int, ...],
    replays: tuple[int, ...],
) -> None:
    """The outage may begin while the next jobs are read, or while they are queued."""
    ids = [scenario.fail() for _ in range(5)]
    errors: list[QueueUnavailable] = []
    fail_calls(monkeypatch, scenario.ledger.reader, "failed_ids", *reads)
    fail_calls(monkeypatch, scenario.ledger, "replay", *replays)

    done = replayed(
        make(),
        rate=20,
        retry_seconds=(0.01, 0.01),
        on_outage=errors.append,
    )

    assert sorted(done) == sorted(ids)
    assert len(errors) == len(reads) + len(replays)


@pytest.mark.parametrize("by_ids", [True, False])
def test_after_an_outage_another_run_continues(
    scenario: Scenario, make: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch, by_ids: bool
) -> None:
    """Without retries the error is raised; jobs that were not reached are still failed."""
    ids = [scenario.fail() for _ in range(3)]
    replay = make(job_ids=ids) if by_ids else make()
    fail_calls(monkeypatch, scenario.ledger, "replay", 2)
    run = replay.run(10)
    first = next(run).job_ids
    with pytest.raises(QueueUnavailable):
        next(run)
    assert sorted(first + replayed(replay)) == sorted(ids)


def test_a_stop_ends_it_between_two_batches(
    scenario: Scenario, make: Callable[..., Replay]
) -> None:
    """It also ends waits for the rate or for Redis."""
    for _ in range(3):
        scenario.fail()
    stop = threading.Event()
    run = make().run(0.001, stop=stop)
    next(run)
    stop.set()
    assert list(run) == []
    assert scenario.ledger.reader.count_failed() == 2


def test_a_producer_replays_many_the_same_way(scenario: Scenario) -> None:
    """It replays the failed jobs, each once."""
    failed, queued = scenario.fail(), scenario.enqueue("2")
    producer = Producer(scenario.settings, ledger=scenario.ledger)
    assert producer.replay_many([failed, queued, failed, "gone"]) == [failed]
    assert producer.replay_many([]) == []
