"""What each part offers is exactly what its `__all__` lists."""

from __future__ import annotations

import importlib
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
