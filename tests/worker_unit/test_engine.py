"""One pump at a time in a process, also where Celery's pool is threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker import engine as engine_module
from harasocial_dispatch.worker.engine import Engine

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
