"""SIGTERM, SIGINT and rolling restarts under load: nothing is lost or sent twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import State
from support.accounting import settle
from support.harness import (
    DEADLINE_SECONDS,
    StartWorker,
    body,
    eventually,
    kill,
    wait_until_ended,
)

RESTARTS = 20


def test_twenty_rolling_restarts_under_load(
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
    chance: random.Random,
) -> None:
    """Promises 1 and 4 over 20 warm shutdowns, by SIGTERM and SIGINT in turn.

    No worker is killed, so no message is POSTed twice, and no outcome is unknown.
    """
    # given workers with a load that lasts longer than the test
    sandbox.latency_seconds = 0.05
    options = ("--concurrency", "1")
    workers = [start_worker(*options, IN_FLIGHT=6, wait=False) for _ in "1234"]
    for worker in workers[:2]:
        eventually(worker.is_ready, what="the start of those to be stopped first")
    ids: list[str] = []
    stops: list[float] = []

    # when they are stopped and replaced, two at a time
    for turn in range(RESTARTS // 2):
        ids += producer.enqueue_many(
            body(page_id=str(1000 + i % 7), metadata=f"job {turn}-{i}") for i in range(200)
        ).accepted
        time.sleep(chance.uniform(0, 0.3))
        leaving = [workers.pop(0), workers.pop(0)]
        began = time.monotonic()
        for worker, how in zip(leaving, (signal.SIGTERM, signal.SIGINT), strict=True):
            kill(worker.pid, how)
        workers += [start_worker(*options, IN_FLIGHT=6, wait=False) for _ in leaving]
        statuses = [worker.wait() for worker in leaving]
        stops.append(time.monotonic() - began)
        # After SIGINT, Celery's exit status is 1.
        assert statuses == [0, 1], leaving[0].log() + leaving[1].log()
        for worker in workers[:2]:
            eventually(worker.is_ready, what="the start of those to be stopped next")

    # then all messages were received once
    account = settle(producer, sandbox, ids)
    print(f"{RESTARTS} restarts, {max(stops):.1f} s at most: {account}")  # noqa: T201 - figures
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == len(ids)
    assert {record.state for record in account.records.values()} == {State.SENT}
    assert max(stops) < 8, "a warm shutdown takes at most a slice and a call"


def test_sigterm_to_the_process_group_interrupts_no_call(
    producer: Producer, sandbox: Sandbox, ledger: Ledger, start_worker: StartWorker
) -> None:
    """Like systemd, this test sends SIGTERM to parent and children at the same time."""
    sandbox.latency_seconds = 0.5
    worker = start_worker("--concurrency", "2", IN_FLIGHT=10)
    ids = producer.enqueue_many(body(metadata=f"job {i}") for i in range(200)).accepted
    eventually(lambda: sandbox.totals().posts >= 20, what="calls in flight")

    os.killpg(worker.pid, signal.SIGTERM)
    worker.process.wait(DEADLINE_SECONDS)

    # The outcome of every sent call is recorded. Other jobs are unchanged.
    states = ledger.reader.count_states()
    assert states[State.SENDING] == 0
    assert states[State.SENT] == sandbox.totals().posts
    sandbox.latency_seconds = 0
    start_worker()
    account = settle(producer, sandbox, ids)
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == 200


def test_a_recycled_child_interrupts_no_call(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Celery's --max-tasks-per-child ends processes between dispatches, not during a call."""
    sandbox.latency_seconds = 0.02
    start_worker("--concurrency", "2", "--max-tasks-per-child", "1")

    ids = []
    for i in range(30):
        ids.append(producer.enqueue(body(metadata=f"job {i}")))
        time.sleep(0.05)

    account = settle(producer, sandbox, ids)
    account.check(kills_excuse_doubles=False)
    assert account.posts.total() == 30


#: Simulates a race in Celery. If SIGTERM arrives after a child gets a task and before it confirms
#: this, the main process never reads the end of the task.
LOST_ENDS = """
from celery.signals import worker_ready
from billiard import Value

@worker_ready.connect
def lose_ends(sender, **_):
    counters = sender.pool._pool._on_ready_counters
    counters.update({pid: Value("i") for pid in counters})
"""


def test_a_child_does_not_wait_long_for_a_lost_task_end(
    producer: Producer, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Promise 11: the stop still takes only seconds."""
    (tmp_path / "lost_ends.py").write_text(LOST_ENDS)
    worker = start_worker("--concurrency", "1", "--include", "lost_ends")
    wait_until_ended(producer, [producer.enqueue(body())])
    eventually(lambda: "succeeded in" in worker.log(), what="the end of the task")

    kill(worker.pid, signal.SIGTERM)

    assert worker.process.wait(10) == 0
