"""Fixtures: a namespace for each test, and jobs whose outcomes are set without a worker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harasocial_dispatch.cli import commands
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from support.command_line import Jobs, Run
from support.processes import OURS


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    return valkey.url


@pytest.fixture
def environment(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> pytest.MonkeyPatch:
    """Use settings for this test only: a new namespace, and no `.env` file."""
    monkeypatch.setenv("HARASOCIAL_REDIS_URL", redis_url)
    monkeypatch.setenv("HARASOCIAL_NAMESPACE", f"test-{uuid.uuid4().hex[:12]}")
    # No server listens here, so that no test reaches the real API.
    monkeypatch.setenv("HARASOCIAL_API_URL", "http://127.0.0.1:1/social/messages.json")
    # No rate limit, so that jobs end immediately.
    monkeypatch.setenv("HARASOCIAL_PAGE_RATE", "0")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.fixture
def run(environment: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a command line: `run("show", job_id)`."""

    def run_command(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(commands, [str(argument) for argument in arguments], input=stdin)

    return run_command


@pytest.fixture
def jobs(environment: pytest.MonkeyPatch) -> Iterator[Jobs]:
    # No rate limit, so that jobs end immediately.
    settings = replace(Settings.from_environment(), page_rate=0.0)
    ledger = Ledger(settings)
    producer = Producer(settings, ledger=ledger)
    yield Jobs(ledger, producer)
    producer.close()


@pytest.fixture
def program(environment: pytest.MonkeyPatch) -> list[str]:
    """Return the command line of a separate process, for tests of signals and terminals."""
    return [*OURS]
