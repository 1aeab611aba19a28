"""Replays of many jobs: counted first, rate-limited, stopped, and resumed after an outage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis
from harasocial_dispatch.flower import replays as replays_module
from harasocial_dispatch.flower.replays import Replays, Stage, TrackedReplay
from harasocial_dispatch.ledger import JobFilter, Ledger
from harasocial_dispatch.producer.bulk_replay import Replay
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State
from support.flower_harness import fail_job, new_page_id
from support.harness import eventually, present

Make = Callable[..., TrackedReplay]

#: A rate (jobs per second) with which only the first job of a replay is queued during a test.
SLOW = 0.001


@pytest.fixture
def replays(ledger: Ledger) -> Replays:
    return Replays(ledger)


@pytest.fixture
def make(ledger: Ledger, settings: Settings) -> Make:
    return partial(tracked, ledger, settings)


def tracked(ledger: Ledger, settings: Settings, **which: Any) -> TrackedReplay:
    return TrackedReplay(about="some", replay=Replay(ledger, **which))


def states(ledger: Ledger, ids: list[str]) -> dict[State, int]:
    return Counter(status.state for status in ledger.reader.statuses(ids).values())


def planned(replays: Replays, replay: TrackedReplay) -> TrackedReplay:
    replays.plan(replay)
    eventually(lambda: replay.stage is not Stage.COUNTING, what="the count")
    return replay


def planned_by_another(replays: Replays, replay: TrackedReplay) -> TrackedReplay | None:
    """Return the stored plan of another process, or None until its count is stored."""
    found = replays.get(replay.replay_id)
    return found if found is not None and found.stage is not Stage.COUNTING else None


def finished(replays: Replays, replay: TrackedReplay, rate: float | None = None) -> TrackedReplay:
    assert replays.start(replay, rate)
    eventually(lambda: replay.is_over, what="the replay")
    return replay


def test_a_plan_counts_and_sends_nothing(ledger: Ledger, replays: Replays, make: Make) -> None:
    """Jobs are selected by filter or by id. Of a selection, only failed jobs are replayed."""
    page_id = new_page_id()
    ids = [fail_job(ledger, page_id=page_id, metadata=f"order {n}") for n in range(4)]
    fail_job(ledger, page_id=page_id, error_code="190")
    ledger.replay(ids[:1])
    for replay, total in [
        (make(), 4),
        (make(wanted=JobFilter(error_codes=("551",))), 3),
        (make(wanted=JobFilter(error_codes=("551",), page_ids=(page_id,))), 3),
        (make(wanted=JobFilter(error_codes=("551", "190"))), 4),
        (
            make(
                wanted=JobFilter(error_codes=("551", "190"), page_ids=(page_id, "1")),
            ),
            4,
        ),
        (make(text="order 3"), 1),
        (make(job_ids=ids), 3),
        (make(wanted=JobFilter(page_ids=("1",))), 0),
    ]:
        assert planned(replays, replay).total == total
        assert replay.stage is Stage.READY
    assert states(ledger, ids)[State.FAILED] == 3


def test_only_the_selected_jobs_are_replayed(ledger: Ledger, replays: Replays, make: Make) -> None:
    """Jobs that are no longer failed are counted as skipped."""
    ids = [fail_job(ledger, page_id=new_page_id()) for _ in range(3)]
    other = fail_job(ledger, page_id=new_page_id(), error_code="190")
    replay = planned(replays, make(job_ids=ids))
    ledger.replay(ids[:1])
    finished(replays, replay)
    assert (replay.stage, replay.replayed, replay.skipped) == (Stage.DONE, 2, 1)
    assert states(ledger, ids) == {State.QUEUED: 3}
    assert states(ledger, [other]) == {State.FAILED: 1}
    assert list(replay.latest_ids) == ids[1:]


def test_later_failures_are_not_replayed(ledger: Ledger, replays: Replays, make: Make) -> None:
    """A job that fails again immediately is not replayed in a loop."""
    fail_job(ledger, page_id=new_page_id())
    replay = planned(replays, make())
    time.sleep(0.01)
    later = fail_job(ledger, page_id=new_page_id())
    finished(replays, replay)
    assert (replay.replayed, states(ledger, [later])) == (1, {State.FAILED: 1})


def test_the_rate_is_kept(ledger: Ledger, replays: Replays, make: Make) -> None:
    """Ten jobs at forty per second take a quarter of a second, without the first ones."""
    for _ in range(10):
        fail_job(ledger, page_id=new_page_id())
    replay = planned(replays, make())
    began = time.monotonic()
    finished(replays, replay, rate=40)
    took = time.monotonic() - began
    assert replay.replayed == 10
    assert took >= (10 - 4) / 40


def test_after_a_cancellation_the_rest_stays_failed(
    ledger: Ledger, replays: Replays, make: Make
) -> None:
    """Queued jobs stay queued. The replay cannot be started again."""
    for _ in range(5):
        fail_job(ledger, page_id=new_page_id())
    replay = planned(replays, make())
    assert replays.start(replay, SLOW)
    eventually(lambda: replay.replayed == 1, what="the first job")
    assert replays.stop(replay)
    eventually(lambda: replay.stage is Stage.STOPPED, what="its end")
    assert ledger.reader.count_states()[State.FAILED] == 4
    assert not replays.start(replay, None)
    assert not replays.stop(replay)


def test_a_plan_can_be_stopped(replays: Replays, make: Make) -> None:
    """Nothing is sent, even if the start button is clicked afterwards."""
    replay = planned(replays, make())
    assert replays.stop(replay)
    assert replay.stage is Stage.STOPPED
    assert not replays.start(replay, None)


@pytest.mark.parametrize("by", ["filter", "selection"])
def test_a_replay_is_interrupted_by_an_outage_and_resumed(
    own_valkey: EmbeddedValkey, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay retries for some time, then stops with a reason, and can be started again."""
    # given a running replay
    monkeypatch.setattr(replays_module, "_RETRY_SECONDS", (0.05, 0.05))
    settings = Settings(redis_url=own_valkey.url, page_rate=0.0)
    ledger = Ledger(settings, timeout_seconds=1.0)
    ids = [fail_job(ledger, page_id=new_page_id()) for _ in range(6)]
    replays = Replays(ledger)
    by_ids = {"job_ids": ids} if by == "selection" else {}
    replay = planned(replays, tracked(ledger, settings, **by_ids))
    assert replays.start(replay, 1)
    eventually(lambda: replay.replayed >= 1, what="the first job")

    # when Redis hangs for longer than the retries
    own_valkey.pause()
    eventually(lambda: replay.stage is Stage.INTERRUPTED, what="the interruption")
    own_valkey.resume()

    # then it has a reason, and the rest can be replayed
    assert "did not reply in time" in replay.error
    finished(replays, replay)
    assert replay.stage is Stage.DONE
    assert ledger.reader.count_states()[State.FAILED] == 0
    # A call without a reply may have queued its job.
    assert replay.replayed + replay.skipped >= 5


def test_a_replay_outlives_the_process_that_planned_it(ledger: Ledger, make: Make) -> None:
    """Another process shows the replay, and starts it after a confirmation."""
    page_id = new_page_id()
    ids = [fail_job(ledger, page_id=page_id, metadata=f"order {n}") for n in range(3)]
    wanted = JobFilter(error_codes=("551",), page_ids=(page_id,))
    for asked in (make(wanted=wanted, text="order"), make(job_ids=ids)):
        planned(Replays(ledger), asked)
        later = Replays(ledger)
        found = eventually(partial(planned_by_another, later, asked), what="the stored plan")
        assert (found.stage, found.total, found.causes) == (Stage.READY, 3, asked.causes)
        assert later.all()[0].replay_id == asked.replay_id
    late = fail_job(ledger, page_id=page_id, metadata="order 4")
    finished(later, found)
    assert (found.stage, found.replayed) == (Stage.DONE, 3)
    assert states(ledger, [*ids, late]) == {State.QUEUED: 3, State.FAILED: 1}
    # The other plan has no jobs left. The later failure is not part of it.
    first = present(later.get(later.all()[1].replay_id))
    finished(later, first)
    assert (first.replayed, states(ledger, [late])) == (0, {State.FAILED: 1})


def test_a_replay_whose_process_died_is_resumed_by_another(
    ledger: Ledger, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shown as interrupted when its process no longer renews it."""
    monkeypatch.setattr(replays_module, "_OWNER_TTL_SECONDS", 3.0)
    monkeypatch.setattr(replays_module, "_SAVE_SECONDS", 0.1)
    ids = [fail_job(ledger, page_id=new_page_id()) for _ in range(4)]
    # given a replay that has queued one job when its process dies
    dying = Replays(ledger)
    replay = planned(dying, make(job_ids=ids))
    assert dying.start(replay, SLOW)
    eventually(lambda: replay.replayed == 1, what="the first job")
    other = Replays(ledger)
    eventually(lambda: [each.replayed for each in other.running()] == [1], what="its progress")
    seen = present(other.get(replay.replay_id))
    assert not other.start(seen, None)
    monkeypatch.setattr(dying, "_save", lambda tracked: None)
    # when its claim has expired
    eventually(lambda: not other.running(), what="the end of its claim")
    # then another process replays the rest
    seen = present(other.get(replay.replay_id))
    assert seen.stage is Stage.INTERRUPTED
    assert "Flower was stopped" in seen.error
    finished(other, seen)
    assert (seen.stage, seen.replayed) == (Stage.DONE, 4)
    assert states(ledger, ids) == {State.QUEUED: 4}
    replay.stop.set()


def test_a_claim_that_expires_during_another_is_free(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start is not refused because of an owner that no longer exists."""
    store = ledger.replay_store
    assert store.claim("1f0c", "the earlier process", ttl_seconds=60)
    client = store._namespace.client
    get = client.get

    def get_after_expiry(key: str) -> Any:
        client.delete(key)
        return get(key)

    monkeypatch.setattr(client, "get", get_after_expiry)
    assert store.claim("1f0c", "this process", ttl_seconds=60)


def test_another_process_can_stop_a_replay(
    ledger: Ledger, replays: Replays, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The running process stops, and the rest stays failed."""
    monkeypatch.setattr(replays_module, "_SAVE_SECONDS", 0.1)
    for _ in range(3):
        fail_job(ledger, page_id=new_page_id())
    replay = planned(replays, make())
    assert replays.start(replay, SLOW)
    eventually(lambda: replay.replayed == 1, what="the first job")
    other = Replays(ledger)
    eventually(other.running, what="the stored progress")
    (seen,) = other.running()
    assert other.stop(seen)
    eventually(lambda: replay.stage is Stage.STOPPED, what="the stop")
    eventually(
        lambda: (found := other.get(replay.replay_id)) and found.stage is Stage.STOPPED,
        what="the stored end",
    )
    assert ledger.reader.count_states()[State.FAILED] == 2


def test_a_stored_replay_by_another_client_is_ignored(ledger: Ledger, settings: Settings) -> None:
    """For any stored value, the list and the page of a replay work."""
    client = redis.Redis.from_url(settings.redis_url)
    prefix = f"{{{settings.namespace}}}:"
    for n, text in enumerate(["", "{}", "[]", "null", '{"about": 1, "jobs": {}}', "[" * 9999]):
        client.hset(f"{prefix}replay:{n}", "state", text)
        client.zadd(f"{prefix}replays", {str(n): n})
    client.close()
    assert Replays(ledger).all() == []
    assert Replays(ledger).get("1") is None


def test_old_replays_are_removed_and_running_ones_are_kept(
    ledger: Ledger, replays: Replays, make: Make
) -> None:
    """The number of stored replays is bounded."""
    for _ in range(3):
        fail_job(ledger, page_id=new_page_id())
    running = planned(replays, make())
    replays.start(running, SLOW)
    for _ in range(60):
        planned(replays, make(job_ids=[]))
    eventually(lambda: len(replays.all()) <= 51, what="the end of the oldest")
    assert replays.get(running.replay_id) is running
    replays.stop(running)
