"""A process has one pump at a time, with any pool of Celery. Interruptions lose nothing."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings, State
from harasocial_dispatch.worker import engine as engine_module
from harasocial_dispatch.worker import pump, shutdown
from harasocial_dispatch.worker.engine import Engine
from support.harness import body, eventually, present

THREADS = 8


@pytest.fixture(autouse=True)
def brief_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a dispatch end soon after its last job. Some tests make a hundred."""
    monkeypatch.setattr(pump, "IDLE_SECONDS", 0.1)


def engine_of(settings: Settings, sandbox: Sandbox, **changes: Any) -> Engine:
    """Return an engine that sends to the sandbox, with other settings changed."""
    ours = {"token": DEFAULT_TOKEN, "api_url": sandbox.url, **changes}
    return Engine(replace(settings, **ours))


def test_first_dispatches_at_once_share_what_the_process_needs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first doorbells may arrive together under `--pool threads`."""
    made: list[Ledger] = []

    def make_slowly(*arguments: Any, **options: Any) -> Ledger:
        time.sleep(0.1)
        made.append(Ledger(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(engine_module, "Ledger", make_slowly)
    engine = Engine(replace(settings, token="secret"))
    together = threading.Barrier(THREADS)

    def dispatch(_: int) -> dict[str, int]:
        together.wait()
        return engine.dispatch()

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(dispatch, range(THREADS))) == [{}] * THREADS
    assert len(made) == 1


def test_an_exception_in_a_dispatch_loses_no_outcome(
    settings: Settings,
    producer: Producer,
    ledger: Ledger,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After Celery's soft time limit, for example, calls in flight end and are recorded."""
    sandbox.latency_seconds = 0.3
    producer.enqueue_many(body(metadata=f"job {i}") for i in range(20))

    def interrupt() -> bool:
        if sandbox.totals().posts >= 5:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(shutdown, "requested", interrupt)
    engine = engine_of(settings, sandbox, in_flight=5)
    with pytest.raises(KeyboardInterrupt):
        engine.dispatch()

    states = ledger.reader.count_states()
    posts = sandbox.totals().posts
    assert 5 <= posts < 20
    assert (states[State.SENDING], states[State.SENT]) == (0, posts)
    assert states[State.QUEUED] == 20 - posts


class Interruption(Exception):
    """The exception of a signal handler, like Celery's at a soft time limit."""


# This test uses the same timer as pytest-timeout.
@pytest.mark.timeout(method="thread")
def test_an_exception_at_any_moment_loses_and_doubles_nothing(
    settings: Settings, producer: Producer, ledger: Ledger, sandbox: Sandbox
) -> None:
    """A signal may arrive during a callback of the event loop or the parser, or at any time."""

    def interrupt(*_: object) -> None:
        raise Interruption

    chance = random.Random(7)
    engine = engine_of(settings, sandbox, in_flight=8, call_deadline_seconds=5)
    sandbox.latency_seconds = 0.002
    engine.dispatch()
    before = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for turn in range(40):
            producer.enqueue_many(body(metadata=f"job {turn}-{i}") for i in range(25))
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.06))
                engine.dispatch()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interruption:
                interrupted += 1

            assert ledger.reader.count_states()[State.SENDING] == 0
            while ledger.reader.count_states()[State.QUEUED]:
                engine.dispatch()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert interrupted > 20
    states = ledger.reader.count_states()
    assert states[State.SENT] + states[State.RETRYING] == 40 * 25
    # A call that was interrupted itself has failed; no sweep has made its job ready again.
    assert states[State.RETRYING] < 40
    assert {job.posts for job in sandbox.jobs()} == {1}


def test_a_ledger_that_hangs_delays_no_deadline(
    settings: Settings,
    producer: Producer,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A Redis that does not answer blocks only its own thread, not the calls."""
    real, hanging = Ledger.claim, threading.Event()

    def claim_slowly(*arguments: Any, **options: Any) -> Any:
        if sandbox.totals().posts:
            hanging.set()
            time.sleep(3)
        return real(*arguments, **options)

    monkeypatch.setattr(Ledger, "claim", claim_slowly)
    engine = engine_of(settings, sandbox, call_deadline_seconds=0.5, max_attempts=1)
    job_id = producer.enqueue(body("sandbox:hang"))
    engine.dispatch()

    record = producer.get_job(job_id)
    assert hanging.is_set()
    assert record.error_code == "timeout"
    assert 450 <= present(record.attempts[0].duration_ms) < 2000


def test_a_thousand_calls_are_in_flight_at_once(
    settings: Settings, producer: Producer, sandbox: Sandbox
) -> None:
    """They run in one process, on one thread."""
    sandbox.latency_seconds = 14.0
    producer.enqueue_many(body(page_id=str(i % 50), metadata=f"{i}") for i in range(1000))
    engine = engine_of(settings, sandbox, in_flight=1000)
    threads_before = threading.active_count()
    with ThreadPoolExecutor(1) as thread:
        counts = thread.submit(engine.dispatch)
        eventually(lambda: sandbox.totals().posts > 950, what="the calls")
        threads = threading.active_count()
        assert counts.result() == {"sent": 1000}

    # One page never takes all slots, so the last few jobs wait.
    assert sandbox.totals().max_concurrent > 950
    # The threads of the pump and of the ledger, and up to eight for name lookups.
    assert threads - threads_before <= 10


def test_nothing_is_shared_over_a_fork(
    settings: Settings, producer: Producer, sandbox: Sandbox
) -> None:
    """Parent and child continue, each with its own connections and event loop."""
    engine = engine_of(settings, sandbox)

    def dispatch_one() -> bool:
        producer.enqueue(body())
        return engine.dispatch() == {"sent": 1}

    assert dispatch_one()
    child = os.fork()
    if child == 0:
        sent = False
        try:
            sent = dispatch_one() and dispatch_one()
            gc.collect()
        finally:
            os._exit(7 if sent else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7
    assert dispatch_one()
    assert dispatch_one()
    assert sandbox.totals().posts == 5
