"""The executor keeps working after an exception interrupts `submit`."""

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

#: More than the number of moments of each call below.
MOMENTS = 300
DEADLINE_SECONDS = 60.0


class Interruption(Exception):
    """The exception of a signal handler."""


def interrupted_at(moment: int, call: Callable[[], object]) -> bool:
    """Interrupt a call with an exception at a moment. Return whether the call reached it.

    Moments are lines and returns from functions, at any depth. They include all moments at which
    Python runs signal handlers.
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
    """Return whether a call returns within the timeout."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    return not thread.is_alive()


def test_results_and_errors_are_returned_to_the_caller() -> None:
    executor = InterruptibleExecutor(2, "test")
    assert executor.submit(divmod, 7, 2).result(DEADLINE_SECONDS) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 7, 0).result(DEADLINE_SECONDS)
    executor.shutdown()


def test_a_shutdown_ends_the_threads_and_starts_no_more_work() -> None:
    executor = InterruptibleExecutor(1, "ending")
    began, may_end = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        may_end.wait(DEADLINE_SECONDS)

    executor.submit(work)
    assert began.wait(DEADLINE_SECONDS)
    late = executor.submit(divmod, 7, 2)
    (thread,) = (t for t in threading.enumerate() if t.name == "ending_0")
    executor.shutdown(cancel_futures=True)
    may_end.set()

    thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert late.cancelled()


def test_an_exception_during_submit_does_not_block_later_work() -> None:
    """Celery's soft time limit may interrupt any code, including that of a library."""
    executor = InterruptibleExecutor(1, "test")
    for moment in range(MOMENTS):
        struck = interrupted_at(moment, lambda: executor.submit(int))
        assert returns(lambda: executor.submit(int).result()), f"blocked by moment {moment}"
        if not struck:
            break
    assert moment > 5
    assert not struck, "the call has more moments than were tested"
    executor.shutdown()


def test_an_exception_during_observe_does_not_block_later_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = JobEvents(FakeApp(), Settings())  # type: ignore[arg-type]  # needs no broker
    monkeypatch.setattr(events, "take", list)
    batch: Any = [object()] * 3
    events._put(batch)
    for moment in range(MOMENTS):
        struck = interrupted_at(moment, lambda: events._put(batch))
        assert returns(lambda: events._put(batch)), f"blocked by moment {moment}"
        if not struck:
            break
    assert not struck, "the call has more moments than were tested"


class FakeApp:
    """A Celery application without a current task."""

    current_worker_task = None
