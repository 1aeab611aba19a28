"""A scenario for each test: a ledger on fakeredis whose clock the test moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import fakeredis
import pytest
import time_machine
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import (
    Settings,
)
from support.scenario import START, QuickScenario, Scenario


@pytest.fixture
def clock() -> Iterator[Any]:
    with time_machine.travel(START, tick=False) as traveller:
        yield traveller


@pytest.fixture
def make_scenario(clock: Any) -> Callable[..., Scenario]:
    """Return a maker of scenarios with settings of their own, on a Redis of their own."""

    def make(**changes: Any) -> Scenario:
        ours = {"retry_base_seconds": 2.0, "page_rate": 0.0, "page_burst": 1, **changes}
        made = Settings(namespace="test", **ours)
        client = fakeredis.FakeRedis(decode_responses=True)
        return Scenario(client, clock, made)

    return make


@pytest.fixture
def scenario(make_scenario: Callable[..., Scenario]) -> Scenario:
    return make_scenario()


@pytest.fixture
def make_quick_scenario(valkey: EmbeddedValkey) -> Callable[..., QuickScenario]:
    """Return a maker of quick scenarios with settings of their own, each in its own namespace."""
    return partial(QuickScenario.on, valkey.url)


@pytest.fixture
def quick_scenario(make_quick_scenario: Callable[..., QuickScenario]) -> QuickScenario:
    return make_quick_scenario()


@pytest.fixture
def producer(scenario: Scenario) -> Producer:
    """Return a producer on the ledger of `scenario`."""
    return Producer(scenario.settings, ledger=scenario.ledger)
