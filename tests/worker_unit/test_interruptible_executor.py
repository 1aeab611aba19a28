"""Threads that stay usable when an exception strikes while they are handed work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.interruptible_executor import InterruptibleExecutor
from harasocial_dispatch.worker.observe.events import JobEvents

#: More moments than one of the calls below has.
MOMENTS = 300
DEADLINE_SECONDS = 10.0


class Interruption(Exception):
    """What a signal handler raises."""


def interrupted_at(moment: int, call: Callable[[], object]) -> bool:
    """Make a call that an exception strikes at that moment; return whether it came so far.

    The moments are those at which Python runs signal handlers, and some more: lines, and returns
    from functions, at any depth.
    """
    left = moment

    def strike(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if event in ("line", "return"):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Interruption
        return strike

    before = sys.gettrace()
    sys.settrace(strike)
    try:
        call()
    except Interruption:
        return True
    finally:
        sys.settrace(before)
    return False


def returns(call: Callable[[], object]) -> bool:
    """Return whether a call returns, in time."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    return not thread.is_alive()


def test_results_and_errors_reach_the_caller() -> None:
    executor = InterruptibleExecutor(2, "test")
    assert executor.submit(divmod, 7, 2).result(DEADLINE_SECONDS) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result(DEADLINE_SECONDS)
    executor.shutdown()


def test_after_a_shutdown_the_threads_end_and_nothing_more_begins() -> None:
    executor = InterruptibleExecutor(1, "ending")
    began, may_end = threading.Event(), threading.Event()
    executor.submit(lambda: (began.set(), may_end.wait(DEADLINE_SECONDS)))
    assert began.wait(DEADLINE_SECONDS)
    late = executor.submit(divmod, 7, 2)
    executor.shutdown(cancel_futures=True)
    may_end.set()

    (thread,) = (t for t in threading.enumerate() if t.name == "ending_0")
    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert late.cancelled()


def test_an_exception_while_work_is_submitted_blocks_no_later_work() -> None:
    """Celery's soft time limit may strike anywhere, also between two steps of a library."""
    executor = InterruptibleExecutor(1, "test")
    for moment in range(MOMENTS):
        struck = interrupted_at(moment, lambda: executor.submit(int))
        assert returns(lambda: executor.submit(int).result()), f"blocked by moment {moment}"
        if not struck:
            break
    assert moment > 5
    assert not struck, "the call has more moments than were tried"
    executor.shutdown()


def test_an_exception_while_events_are_observed_blocks_no_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = JobEvents(FakeApp(), Settings())  # type: ignore[arg-type]  # no broker is needed
    monkeypatch.setattr(events, "take", list)
    batch: Any = [object()] * 3
    events._put(batch)
    for moment in range(MOMENTS):
        struck = interrupted_at(moment, lambda: events._put(batch))
        assert returns(lambda: events._put(batch)), f"blocked by moment {moment}"
        if not struck:
            break
    assert not struck, "the call has more moments than were tried"


class FakeApp:
    """Celery's application outside of any task."""

    current_worker_task = None
