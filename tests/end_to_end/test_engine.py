"""One pump at a time in a process, whatever Celery's pool; and what interrupts it loses nothing."""

from __future__ import annotations

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
from harasocial_dispatch.worker import shutdown
from harasocial_dispatch.worker.engine import Engine
from stage import body

THREADS = 8


def test_first_dispatches_at_once_share_what_the_process_needs(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the first doorbells come together under `--pool threads`."""
    made: list[Ledger] = []

    def make_slowly(*arguments: Any) -> Ledger:
        time.sleep(0.1)
        made.append(Ledger(*arguments))
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
    """As when Celery's soft time limit ends one: calls in flight are waited for, and recorded."""
    sandbox.latency_seconds = 0.3
    producer.enqueue_many(body(metadata=f"job {i}") for i in range(20))

    def interrupt() -> bool:
        if sandbox.totals().posts >= 5:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(shutdown, "requested", interrupt)
    engine = Engine(replace(settings, token=DEFAULT_TOKEN, api_url=sandbox.url, in_flight=5))
    with pytest.raises(KeyboardInterrupt):
        engine.dispatch()

    states = ledger.lookup.count_states()
    posts = sandbox.totals().posts
    assert 5 <= posts < 20
    assert (states[State.SENDING], states[State.SENT]) == (0, posts)
    assert states[State.QUEUED] == 20 - posts
