"""The shutdown flag stops every pump, and SIGTERM does not interrupt a dispatch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harasocial_dispatch.worker import shutdown


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    shutdown.reset()
    yield
    shutdown.reset()


def test_a_request_is_kept_until_it_is_reset() -> None:
    """A repeated request has no further effect."""
    assert not shutdown.requested()
    shutdown.request()
    shutdown.request()
    assert shutdown.requested()
    shutdown.reset()
    assert not shutdown.requested()


@pytest.mark.parametrize("asks_in", ["parent", "child"])
def test_parent_and_child_share_the_flag(asks_in: str) -> None:
    """Celery forks its children before a stop is requested."""
    to_child, from_parent = os.pipe()
    child = os.fork()
    if child == 0:
        if asks_in == "child":
            shutdown.request()
        else:
            os.read(to_child, 1)
        os._exit(7 if shutdown.requested() else 1)
    if asks_in == "parent":
        shutdown.request()
        os.write(from_parent, b"x")
    _, status = os.waitpid(child, 0)
    os.close(to_child)
    os.close(from_parent)
    assert os.waitstatus_to_exitcode(status) == 7
    assert shutdown.requested()


def test_a_sigterm_is_handled_at_the_end_of_a_dispatch() -> None:
    """The exception of Celery's handler must not occur between a claim and its calls."""

    def raise_exit(*_: object) -> None:
        raise SystemExit

    done = []
    before = signal.signal(signal.SIGTERM, raise_exit)
    try:
        with pytest.raises(SystemExit), shutdown.sigterm_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append(shutdown.requested())
        assert (done, shutdown.requested()) == ([True], False)

        with shutdown.sigterm_deferred():
            assert not shutdown.requested()
        assert signal.getsignal(signal.SIGTERM) is raise_exit
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_signals_are_not_deferred() -> None:
    """In Celery's thread pool, signals do not interrupt a dispatch."""
    with ThreadPoolExecutor(1) as threads:
        before = signal.getsignal(signal.SIGTERM)
        assert threads.submit(_handler_within).result() is before


def _handler_within() -> object:
    with shutdown.sigterm_deferred():
        return signal.getsignal(signal.SIGTERM)
