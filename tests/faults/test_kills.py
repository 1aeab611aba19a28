"""`kill -9` of children, parents and workers under load: no job is lost or sent after `sent`."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter

from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import (
    JobRecord,
    State,
)
from support.accounting import settle
from support.harness import StartWorker, WorkerProcess, body, eventually, kill
from support.results import make_result

JOBS, KILLS = 5000, 24
STOP, CONTINUE = signal.SIGSTOP, signal.SIGCONT


def test_killed_processes_lose_no_job_and_resend_no_sent_one(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker, chance: random.Random
) -> None:
    """Promises 1, 4 and 6, with 24 kills at random moments over 5,000 jobs.

    Every job ends. A job recorded as sent is not POSTed again. A second POST happens only after an
    attempt recorded as unknown_outcome. A job with at_most_once is never POSTed twice.
    """
    # given two workers with slow calls, and a tenth of the jobs at_most_once
    sandbox.latency_seconds = 0.03
    # A call that reaches its deadline would have an unknown outcome without a kill.
    times = {"LEASE_SECONDS": 5, "CALL_DEADLINE_SECONDS": 4.5, "IN_FLIGHT": 6}

    def start() -> WorkerProcess:
        return start_worker("--concurrency", "2", **times)

    workers = [start(), start()]
    ids = producer.enqueue_many(
        {
            **body(page_id=str(1000 + i % 20), metadata=f"job {i}"),
            "delivery": "at_most_once" if i % 10 == 0 else "at_least_once",
        }
        for i in range(JOBS)
    ).accepted

    # when processes are killed at random moments
    killed: Counter[str] = Counter()
    while killed.total() < KILLS:
        time.sleep(chance.uniform(0.05, 0.5))
        what = chance.choices(["child", "parent", "all"], [16, 3, 1])[0]
        index = chance.randrange(len(workers))
        if what == "child":
            children = workers[index].children()
            if not children or not kill(chance.choice(children)):
                continue
        elif what == "parent":
            # Its children complete their work, then end because the parent is gone.
            kill(workers[index].pid)
            workers[index] = start()
        else:
            for worker in workers:
                worker.kill()
            workers = [start(), start()]
        killed[what] += 1

    # then all jobs, POSTs and records are consistent
    account = settle(producer, sandbox, ids)
    print(f"killed {dict(killed)}: {account}")  # noqa: T201 - the figures of the run
    account.check(kills_excuse_doubles=True)
    assert killed.total() == KILLS
    # … and also a moment later: no process sends a job that is recorded as sent
    posts = sandbox.totals().posts
    time.sleep(1)
    assert sandbox.totals().posts == posts


def test_a_worker_that_lost_its_claim_records_nothing(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 6: the claim of a worker that is stopped for longer than its lease is invalid."""
    # given a worker that is stopped during the call of a job
    times = {"LEASE_SECONDS": 4, "CALL_DEADLINE_SECONDS": 10}
    sandbox.latency_seconds = 3.0
    slow = start_worker("--concurrency", "1", **times)
    job_id = producer.enqueue(body(metadata="contested"))
    eventually(lambda: sandbox.totals().posts == 1, what="the first call")
    for pid in (*slow.children(), slow.pid):
        kill(pid, STOP)

    # when another worker has taken over and finished
    sandbox.latency_seconds = 0
    start_worker("--concurrency", "1", **times)
    record = eventually(lambda: _if_ended(producer, job_id), what="the takeover")
    assert record.state is State.SENT
    assert [a.error_code for a in record.attempts] == ["unknown_outcome", None]

    # and the first worker resumes with its outcome
    for pid in (slow.pid, *slow.children()):
        kill(pid, CONTINUE)
    eventually(lambda: "claim_lost" in slow.log() or "taken over" in slow.log())

    # then the record of the new owner is unchanged
    assert producer.get_job(job_id) == record


def test_an_outcome_is_recorded_only_with_the_current_claim(
    producer: Producer, ledger: Ledger
) -> None:
    """Promise 6, in the ledger: only one of several concurrent calls with one claim records."""
    producer.enqueue(body())
    (claim,) = ledger.claim(1).claims
    result = make_result(claim, State.SENT)
    won: list[bool] = []
    racers = [threading.Thread(target=lambda: won.extend(ledger.record([result]))) for _ in "12345"]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    assert sorted(won) == [False, False, False, False, True]
    assert producer.get_job(claim.job_id).attempt_count == 1


def _if_ended(producer: Producer, job_id: str) -> JobRecord | None:
    record = producer.get_job(job_id)
    return record if record.state in {State.SENT, State.FAILED} else None
