"""Replaying: what a plan counts, which jobs a run takes, and outages during it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from harasocial_dispatch.ledger import JobFilter
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.producer.replay import Replay
from harasocial_dispatch.schemas import OutcomeClass, QueueUnavailable, State

if TYPE_CHECKING:
    from .conftest import Story


@pytest.fixture
def make(story: Story) -> Callable[..., Replay]:
    """Return a maker of replays of the story's jobs."""
    return lambda **which: Replay(story.ledger, **which)


def replayed(replay: Replay, **options: Any) -> list[str]:
    return [job_id for batch in replay.run(**options) for job_id in batch.job_ids]


def fail_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *numbers: int) -> None:
    """Let some calls of a method fail, the first being number 1, as if Redis was away."""
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
def test_a_plan_counts_what_a_run_replays(story: Story, make: Callable[..., Replay], which: Any):
    """However the jobs are selected, the count, the causes and the run agree."""
    ids = [story.fail(*job) for job in [("1", "551"), ("1", "190"), ("2", "551")]]
    replay = make(job_ids=ids) if which == "ids" else make(**which)

    plan = replay.plan()

    assert plan.total == 3
    assert [(cause.error_code, cause.count) for cause in plan.causes] == [("551", 2), ("190", 1)]
    assert all(cause.meaning and cause.what_to_do for cause in plan.causes)
    assert {story.state(job_id) for job_id in ids} == {State.FAILED}
    assert sorted(replayed(replay)) == sorted(ids)
    assert {story.state(job_id) for job_id in ids} == {State.QUEUED}


def test_jobs_named_by_id_that_are_not_failed_are_refused(
    story: Story, make: Callable[..., Replay]
):
    """With their state; those that stop being failed later are reported by the run."""
    failed, later, queued = story.fail(), story.fail(), story.enqueue("2")
    replay = make(job_ids=[failed, queued, "gone", failed, later])
    assert replay.plan().refused == {queued: State.QUEUED, "gone": None}
    story.ledger.replay([later])
    (batch,) = replay.run()
    assert (batch.job_ids, batch.refused) == ([failed], {later: State.QUEUED})


@pytest.mark.parametrize("is_planned", [True, False])
@pytest.mark.parametrize("rate", [None, 1e6])
def test_a_job_that_fails_again_is_not_replayed_twice(
    story: Story, make: Callable[..., Replay], is_planned: bool, rate: float | None
):
    """Neither in the same run, nor in one that continues after an outage."""
    ids = {story.fail() for _ in range(3)}
    replay = make()
    if is_planned:
        replay.plan()
    assert set(replayed(replay, rate=rate)) == ids
    story.wait(1)
    for claim in story.claim():
        story.record(claim, OutcomeClass.PERMANENT, error_code="551")
    assert story.ledger.reader.count_failed() == 3
    assert replayed(replay) == []


@pytest.mark.parametrize(("reads", "replays"), [((1, 2), ()), ((), (1, 2)), ((2,), (2,))], ids=str)
def test_an_outage_shorter_than_its_retries_does_not_stop_it(
    story: Story,
    make: Callable[..., Replay],
    monkeypatch: pytest.MonkeyPatch,
    reads: tuple[int, ...],
    replays: tuple[int, ...],
):
    """Whether Redis is away when the next jobs are read, or when they are queued."""
    ids = [story.fail() for _ in range(5)]
    errors: list[QueueUnavailable] = []
    fail_calls(monkeypatch, story.ledger.reader, "failed_ids", *reads)
    fail_calls(monkeypatch, story.ledger, "replay", *replays)

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
    story: Story, make: Callable[..., Replay], monkeypatch: pytest.MonkeyPatch, by_ids: bool
):
    """Without retries the error is raised; the jobs that were not reached are still failed."""
    ids = [story.fail() for _ in range(3)]
    replay = make(job_ids=ids) if by_ids else make()
    fail_calls(monkeypatch, story.ledger, "replay", 2)
    run = replay.run(10)
    first = next(run).job_ids
    with pytest.raises(QueueUnavailable):
        next(run)
    assert sorted(first + replayed(replay)) == sorted(ids)


def test_a_stop_ends_it_between_two_batches(story: Story, make: Callable[..., Replay]):
    """Also while it waits for its rate, or for Redis."""
    for _ in range(3):
        story.fail()
    stop = threading.Event()
    run = make().run(0.001, stop=stop)
    next(run)
    stop.set()
    assert list(run) == []
    assert story.ledger.reader.count_failed() == 2


def test_a_producer_replays_many_the_same_way(story: Story):
    """Those that were failed, each once."""
    failed, queued = story.fail(), story.enqueue("2")
    producer = Producer(story.settings, ledger=story.ledger)
    assert producer.replay_many([failed, queued, failed, "gone"]) == [failed]
    assert producer.replay_many([]) == []
