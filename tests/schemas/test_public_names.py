"""The producer's functions are found as its other names are."""

from __future__ import annotations

import importlib
import inspect


def test_the_producer_shows_its_functions():
    """To `dir`, and so to completion in a shell or notebook; no name is listed for nothing."""
    producer = importlib.import_module("harasocial_dispatch.producer")
    assert set(producer.__all__) <= set(dir(producer))
    assert {"enqueue", "enqueue_many", "MessageBody", "__doc__"} <= set(dir(producer))
    # A submodule of the same name would be found in place of the function.
    assert [name for name in producer.__all__ if inspect.ismodule(vars(producer).get(name))] == []
    functions = set(producer.__all__) - set(vars(producer))
    assert {"enqueue", "replay"} <= functions
    assert all(inspect.isfunction(getattr(producer.Producer, name)) for name in functions)
    assert not hasattr(producer, "enqeue")
