"""The word of a warm shutdown reaches processes that were forked before it was given."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from harasocial_dispatch.worker import shutdown


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    shutdown.reset()
    yield
    shutdown.reset()


def test_a_request_holds_until_it_is_reset():
    """Asked for once or twice, it is the same."""
    assert not shutdown.requested()
    shutdown.request()
    shutdown.request()
    assert shutdown.requested()
    shutdown.reset()
    assert not shutdown.requested()


@pytest.mark.parametrize("asks_in", ["parent", "child"])
def test_parent_and_child_share_the_word(asks_in: str):
    """Celery forks its children long before it is told to stop."""
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
