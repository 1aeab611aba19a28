"""Fixtures: a namespace for each test, and jobs whose outcomes are set without a worker."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from harasocial_dispatch.cli import commands
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import (
    Settings,
    State,
)
from support.harness import body
from support.results import make_result

Run = Callable[..., Result]


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


@dataclass
class Jobs:
    """Enqueues jobs and records their outcomes as a worker does."""

    ledger: Ledger
    producer: Producer

    def enqueue(self, *, page_id: str = "500725830264749", **fields: Any) -> str:
        metadata = fields.pop("metadata", None)
        return self.producer.enqueue(body(page_id=page_id, metadata=metadata), **fields)

    def end(self, state: State, error_code: str | None = None, message: str | None = None) -> None:
        """Claim all ready jobs, and record the same outcome for each one."""
        while claims := self.ledger.claim(100).claims:
            made = [
                make_result(
                    claim,
                    state,
                    error_code,
                    delay_seconds=60,
                    error_message=message,
                    http_status=200 if state is State.SENT else 400,
                )
                for claim in claims
            ]
            self.ledger.record(made)

    def failed(
        self, error_code: str = "10/2018278", message: str = "refused", **fields: Any
    ) -> str:
        """Return the id of a new job that failed."""
        job_id = self.enqueue(**fields)
        self.end(State.FAILED, error_code, message)
        # Failures are sorted by millisecond, so the next failure needs a different one.
        failed_ms = self.ledger.reader.now_ms()
        while self.ledger.reader.now_ms() == failed_ms:
            pass
        return job_id

    def sent(self, **fields: Any) -> str:
        """Return the id of a new job that was sent."""
        job_id = self.enqueue(**fields)
        self.end(State.SENT)
        return job_id

    def state(self, job_id: str) -> State:
        return self.producer.get_job(job_id).state


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
    return [sys.executable, "-c", "from harasocial_dispatch.cli import main; main()"]
