"""Fixtures with a real Flower: one shared by tests that use separate pages, or one per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from support.flower_harness import PASSWORD, USER, Flower, FlowerHarness, StartFlower
from support.harness import environment, unique_settings


@pytest.fixture(scope="session")
def harness(
    valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlowerHarness]:
    """Return a shared harness for tests that use separate pages."""
    settings = unique_settings(valkey.url)
    env = environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=f"{USER}:{PASSWORD}")
    flower = Flower(env, tmp_path_factory.mktemp("flower"))
    made = FlowerHarness(settings, Ledger(settings), flower.start())
    yield made
    flower.kill()
    made.ledger.close()


@pytest.fixture
def start_flower(settings: Settings, tmp_path: Path) -> Iterator[StartFlower]:
    """Return a function that starts Flower with the test's ledger and the given settings."""
    started: list[Flower] = []

    def start(
        *options: str,
        command: str = "harasocial-dispatch",
        wait: bool = True,
        new_interpreter: bool = False,
        **changes: Any,
    ) -> Flower:
        login = {"FLOWER_BASIC_AUTH": f"{USER}:{PASSWORD}"}
        env = environment(settings, "http://127.0.0.1:9", **{**login, **changes})
        flower = Flower(env, tmp_path, *options, command=command, new_interpreter=new_interpreter)
        started.append(flower)
        return flower.start(wait=wait)

    yield start
    for flower in started:
        flower.kill()
