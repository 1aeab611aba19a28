"""Repeatable randomness: every fault test uses one printed seed."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """A random generator. Its seed is printed, and FAULT_SEED=… repeats a run."""
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
    print(f"\n{request.node.name}: FAULT_SEED={seed}")  # noqa: T201 - shown when the test fails
    return random.Random(seed)
