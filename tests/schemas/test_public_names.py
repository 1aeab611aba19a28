"""The names of the producer module."""

from __future__ import annotations

import importlib
import inspect


def test_dir_lists_the_functions_of_the_producer() -> None:
    """Completion in a shell or notebook uses `dir`. Every listed name exists."""
    producer = importlib.import_module("harasocial_dispatch.producer")
    assert set(producer.__all__) <= set(dir(producer))
    assert {"enqueue", "enqueue_many", "MessageBody", "__doc__"} <= set(dir(producer))
    # A submodule of the same name would hide the function.
    assert [name for name in producer.__all__ if inspect.ismodule(vars(producer).get(name))] == []
    functions = set(producer.__all__) - set(vars(producer))
    assert {"enqueue", "replay"} <= functions
    assert all(inspect.isfunction(getattr(producer.Producer, name)) for name in functions)
    assert not hasattr(producer, "enqeue")
