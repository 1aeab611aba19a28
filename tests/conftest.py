"""Servers for every test: started by the tests, on free ports, stopped at the end.

A server that is missing skips on a laptop; with CI set, nothing may skip.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings
from hypothesis import settings as effort
from stage import DebianRedis, StartWorker, WorkerProcess, environment

# Property tests run as long as they need: the machine may be busy.
effort.register_profile("unhurried", effort.default, deadline=None)
effort.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own HARASOCIAL_ variables out of the tests."""
    for name in list(os.environ):
        if name.startswith("HARASOCIAL_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey for all tests that do not hurt it; each has a namespace of its own."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="session")
def debian_redis() -> Iterator[DebianRedis]:
    """Debian's redis-server, likewise."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = DebianRedis().start()
    yield server
    server.stop()


@pytest.fixture(params=["valkey", "redis"])
def either_redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of each kind of server in turn."""
    name = "valkey" if request.param == "valkey" else "debian_redis"
    url: str = request.getfixturevalue(name).url
    return url


@pytest.fixture
def settings(valkey: EmbeddedValkey) -> Settings:
    """Settings with a namespace that no other test has."""
    return Settings(redis_url=valkey.url, namespace=f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    made = Producer(settings)
    yield made
    made.close()


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    made = Ledger(settings)
    yield made
    made.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def start_worker(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Iterator[StartWorker]:
    """Start real workers: `start_worker(*celery_options, MAX_ATTEMPTS=3)`; they end with it."""
    with ExitStack() as stack:

        def start(*options: str, wait: bool = True, **changes: Any) -> WorkerProcess:
            quick = {"RETRY_BASE_SECONDS": 0.1, "RETRY_MAX_SECONDS": 0.5}
            made = WorkerProcess(
                environment(settings, sandbox.url, **{**quick, **changes}), tmp_path, *options
            )
            stack.callback(made.kill)
            return made.start(wait=wait)

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """With CI set, a skipped test is a failed run: nothing required may be missing there."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("CI") and skipped:
        terminalreporter.write_line(f"{len(skipped)} skipped; with CI set, nothing may skip")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
