"""An old worker stops when a new version is used, so that it does not ignore pauses and rates."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harasocial_dispatch.ledger.scripts import VERSION
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import WorkerProcess, body, environment, eventually, wait_until_ended
from support.processes import OURS, run_program

PAGE, OTHER_PAGE = "500725830264749", "600"

#: Changes a program to the previous layout, which has neither manual pauses nor rates of pages.
EARLIER = """
from harasocial_dispatch.ledger import scripts
scripts.VERSION = {version}
scripts.OTHER_VERSION = "keys of layout %s; this is an earlier version"
"""


@pytest.fixture
def earlier(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> dict[str, str]:
    """Return the environment of programs of an earlier version."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(EARLIER.format(version=VERSION - 1), encoding="utf-8")
    return environment(settings, sandbox.url) | {"PYTHONPATH": str(folder)}


def run(env: dict[str, str], cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program(*OURS, *arguments, env=env, cwd=cwd)


def test_an_old_running_worker_sends_nothing_to_a_page_paused_later(
    earlier: dict[str, str],
    settings: Settings,
    sandbox: Sandbox,
    producer: Producer,
    tmp_path: Path,
) -> None:
    """It stops at the first call of the new version. A new worker sends and respects the pause."""
    # given a working worker of the earlier version
    send = ("send", "--page-id", PAGE, "--recipient-id", "2560816460648749", "--payload-id", "p")
    old = WorkerProcess(earlier, tmp_path / "old", "--pool", "solo")
    new = WorkerProcess(environment(settings, sandbox.url), tmp_path / "new", "--pool", "solo")
    try:
        old.start()
        assert run(earlier, tmp_path, *send).returncode == 0
        eventually(lambda: len(sandbox.requests()) == 1)

        # when the new version pauses the page, and jobs are enqueued
        producer.pause_page(PAGE, reason="upgrade", by="hoa@shop")
        paused = [producer.enqueue(body()) for _ in range(3)]
        other = producer.enqueue(body(page_id=OTHER_PAGE))

        # then the earlier version reports the reason, enqueues nothing and does not start again
        eventually(lambda: f"layout {VERSION}" in old.log())
        refused = run(earlier, tmp_path, *send)
        assert refused.returncode == 4
        assert f"layout {VERSION}" in refused.stderr
        assert run(earlier, tmp_path, "worker").returncode == 2

        # and the new version sends only the jobs of other pages
        new.start()
        wait_until_ended(producer, [other])
        assert {producer.get_job(job_id).state for job_id in paused} == {State.QUEUED}
        assert len(sandbox.requests()) == 2
        producer.resume_page(PAGE, by="hoa@shop")
        wait_until_ended(producer, paused)
        assert old.process.poll() is None, "the old worker must still run"
        assert old.terminate() == 0
    finally:
        old.kill()
        new.kill()
