"""What each part offers is exactly what its `__all__` lists."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest


@pytest.mark.parametrize("part", ["schemas", "ledger"])
def test_all_is_exactly_the_public_names(part: str):
    """Nothing is offered by accident, nothing promised is missing, and the list is in order."""
    module = importlib.import_module(f"harasocial_dispatch.{part}")
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(module.__all__) == public
    assert len(set(module.__all__)) == len(module.__all__)


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
