"""The pytest plugin, in separate projects."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.processes import run_program

MESSAGE = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}

USES = f"""
from harasocial_dispatch.producer import enqueue

def test_it(harasocial):
    enqueue({MESSAGE!r})
    harasocial.assert_enqueued(page_id="2", count=1)
    assert [job.state for job in harasocial.drain()] == ["sent"]

def test_again(harasocial):
    assert harasocial.enqueued() == []
    enqueue({MESSAGE!r})
    harasocial.assert_enqueued(page_id="3")
"""


def run_pytest(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one file in `folder`, without other plugins, which take long to import."""
    others = {plugin.name for plugin in entry_points(group="pytest11")} - {"harasocial"}
    (folder / "test_shop.py").write_text(tests)
    without = [f"-pno:{name}" for name in ("cacheprovider", *others)]
    return run_program(sys.executable, "-m", "pytest", "-q", *without, *options, cwd=folder)


@pytest.mark.parametrize("server", ["fakeredis", "valkey"])
def test_the_fixture_exists_if_the_package_is_installed(tmp_path: Path, server: str) -> None:
    """Each test has its own jobs, and a failure shows the line of the test."""
    run = run_pytest(tmp_path, USES, "-o", f"harasocial_server={server}")

    assert "1 failed, 1 passed" in run.stdout
    assert "AssertionError: expected at least 1 message with page_id='3'; 0 of 1" in run.stdout
    assert "test_shop.py:12: AssertionError" in run.stdout


def test_a_project_without_the_fixture_imports_only_the_plugin(tmp_path: Path) -> None:
    """No other module of this package is imported."""
    run = run_pytest(
        tmp_path,
        """
import sys

def test_it():
    ours = {name for name in sys.modules if name.startswith("harasocial_dispatch.")}
    assert ours == {"harasocial_dispatch.testing", "harasocial_dispatch.testing.plugin"}
    assert not {"celery", "redis", "fakeredis", "marshmallow"} & sys.modules.keys()
""",
    )
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("missing", ["fakeredis", "lupa"])
def test_a_missing_dependency_is_named(tmp_path: Path, missing: str) -> None:
    """Only tests that use the fixture have an error, which names the package to install."""
    hide = f"import sys\nsys.modules[{missing!r}] = None\n"
    run = run_pytest(tmp_path, f"{hide}{USES}\ndef test_without_it(): pass\n")

    assert "1 passed, 2 errors" in run.stdout
    advice = "pip install 'harasocial-dispatch[testing]'"
    assert f"the test kit needs {missing}: {advice}" in run.stdout


def test_an_unknown_server_is_refused(tmp_path: Path) -> None:
    """The message has the option and its valid values."""
    run = run_pytest(tmp_path, USES, "-o", "harasocial_server=mysql")
    assert "harasocial_server must be fakeredis or valkey, not 'mysql'" in run.stdout


def test_settings_and_server_can_be_overridden(tmp_path: Path) -> None:
    """The project's fixtures take precedence."""
    run = run_pytest(
        tmp_path,
        """
import pytest

@pytest.fixture
def harasocial_settings():
    return {"max_attempts": 7}

def test_it(harasocial):
    assert harasocial.settings.max_attempts == 7
""",
    )
    assert run.returncode == 0, run.stdout
