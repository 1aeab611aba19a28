"""Fixtures for all tests: servers on free ports, which are stopped at the end.

A test that needs a program that no wheel installs, such as redis-server or Chromium, has the mark
`@pytest.mark.needs("redis-server")`: see support/programs.py. Without the program, the test is
skipped. With CI set, a skipped test fails the run.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings
from hypothesis import HealthCheck
from hypothesis import settings as effort
from support.harness import StartWorker, WorkerProcess, environment, unique_settings
from support.programs import how_to_provide, missing

# Property tests have no limit of time, because the machine may be busy.
effort.register_profile(
    "unhurried", effort.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
effort.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the developer's HARASOCIAL_ variables."""
    for name in list(os.environ):
        if name.startswith("HARASOCIAL_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey that tests share. Each test has its own namespace and must not damage the server."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[EmbeddedValkey]:
    """A Valkey for one test. The test may kill, pause or fill it."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def settings(valkey: EmbeddedValkey) -> Settings:
    """Settings with a unique namespace and without a rate limit for pages."""
    return unique_settings(valkey.url)


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
    """Start real workers with `start_worker(*celery_options, MAX_ATTEMPTS=3)`, and stop them."""
    with ExitStack() as stack:

        def start(*options: str, wait: bool = True, **changes: Any) -> WorkerProcess:
            quick = {"RETRY_BASE_SECONDS": 0.1, "RETRY_MAX_SECONDS": 0.5}
            made = WorkerProcess(
                environment(settings, sandbox.url, **{**quick, **changes}), tmp_path, *options
            )
            stack.callback(made.kill)
            return made.start(wait=wait)

        yield start


#: Files whose tests take long, so they are started first. The slowest file is first.
_SLOW = (
    "faults/test_shutdowns.py",
    "faults/test_kills.py",
    "faults/test_broker_outages.py",
    "flower/test_browser.py",
    "flower/test_overview.py",
    "ledger_unit/test_pace.py",
    "ledger_unit/test_any_sequence.py",
    "bench_smoke/test_own_figures.py",
    "docs/test_snippets.py",
    "docs/test_site.py",
    "security/test_hostile.py",
    "security/test_token.py",
    "packaging/test_installed.py",
    "packaging/test_wheel.py",
    "faults/test_campaigns.py",
    "cli/test_enqueue_campaign.py",
    "faults/test_redis_faults.py",
    "faults/test_broker_faults.py",
    "faults/test_clocks.py",
    "faults/test_upgrade.py",
    "faults/test_two_hosts.py",
    "docker/test_running.py",
    "end_to_end/test_namespaces.py",
    "end_to_end/test_redis_urls.py",
    "end_to_end/test_bad_input.py",
    "end_to_end/test_sending.py",
    "end_to_end/test_engine.py",
    "end_to_end/test_lanes.py",
    "end_to_end/test_pace.py",
    "end_to_end/test_demo.py",
    "end_to_end/test_redis_compatibility.py",
    "faults/test_redis_tls.py",
)


#: Fixtures that take seconds to make. All tests of slow files that use one run in one process.
_COSTLY = ("browser", "office", "site", "traces", "wheel")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Start slow tests first, and distribute them over pytest-xdist's workers.

    `--dist worksteal` gives each worker a part of the list. All parts have the same length.
    """
    parts = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    rank = {Path(__file__).parent / name: number for number, name in enumerate(_SLOW)}
    slow = sorted((item for item in items if item.path in rank), key=lambda item: rank[item.path])
    together: dict[str, list[pytest.Item]] = {}
    for item in slow:
        fixtures = getattr(item, "fixturenames", ())
        shared = next((name for name in _COSTLY if name in fixtures), item.nodeid)
        together.setdefault(shared, []).append(item)
    groups = list(together.values())
    others = [item for item in items if item.path not in rank]
    total = len(items)
    items.clear()
    for part in range(parts):
        items += chain.from_iterable(groups[part::parts])
        end = total * (part + 1) // parts
        length = max(end - len(items), 0)
        items += others[:length]
        del others[:length]


def pytest_collection_finish() -> None:
    """Exclude the collected tests from garbage collection, which then takes much less time."""
    gc.collect()
    gc.freeze()


#: The key for a missing program in the `user_properties` of a report, which pytest-xdist transfers
#: from its workers.
_MISSING = "missing program"


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts a program in the background with SIGINT ignored, and so would all programs that
    # the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers",
        "needs(*names): skip the test if one of these is missing; see support/programs.py",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test if a program in its mark is missing."""
    absent = missing(name for mark in item.iter_markers("needs") for name in mark.args)
    if absent:
        item.user_properties.extend((_MISSING, name) for name in absent)
        pytest.skip(f"needs {', '.join(absent)}: {how_to_provide(absent)}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: Any) -> Iterator[None]:
    """Print how to run the skipped tests. With CI set, a skipped test fails the run."""
    yield
    skipped = terminalreporter.stats.get("skipped", [])
    absent = {name for report in skipped for key, name in report.user_properties if key == _MISSING}
    if absent:
        terminalreporter.write_line(f"To run the skipped tests: {how_to_provide(absent)}")
    if os.environ.get("CI") and skipped:
        terminalreporter.write_line(f"{len(skipped)} skipped; with CI set, this is an error")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
