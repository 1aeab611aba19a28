"""The README's commands and code do what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, environment, eventually, free_port, wait_until_ended

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line[2:]
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("$ ")
]
#: Commands that go on until they are stopped.
SERVERS = ("harasocial-dispatch worker", "harasocial-dispatch flower")


def run(command: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command)
    words[0] = shutil.which(words[0], path=env["PATH"]) or words[0]
    return subprocess.run(
        words,
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_console_line_is_a_command_that_a_test_runs() -> None:
    """No test would run a line that starts with another word."""
    assert len(COMMANDS) > 10
    for command in COMMANDS:
        assert command.split()[0] in ("make", "pip", "export", "harasocial-dispatch"), command


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_the_make_targets_exist(command: str) -> None:
    """`make demo` itself is run by the test of the demo, `make test` is running now."""
    ended = run(f"{command} --dry-run", dict(os.environ), ROOT)
    assert ended.returncode == 0, ended.stderr


def test_the_installation_commands_install_this_package(tmp_path: Path) -> None:
    """From a copy of the tree, they resolve to this package with what is installed here."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "tests", "docs"))
    requested = []
    for command in (command for command in COMMANDS if command.startswith("pip ")):
        report = tmp_path / "report.json"
        # Nothing is fetched: setuptools and all dependencies are those of this environment.
        offline = f"--dry-run --no-index --no-build-isolation --report {report}"
        ended = run(f"{sys.executable} -m {command} {offline}", dict(os.environ), clone)
        assert ended.returncode == 0, ended.stderr
        (package,) = json.loads(report.read_text())["install"]
        assert package["metadata"]["name"] == "harasocial-dispatch"
        assert package["download_info"]["url"] == clone.as_uri()
        requested.append("all" in package.get("requested_extras", []))
    assert requested == [False, True]


def test_the_commands_work_one_after_the_other(
    settings: Settings,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """All of them in the README's order, `ID` being the job that failed."""
    start_worker()
    env = environment(settings, sandbox.url)
    job_id = "ID"
    for command in COMMANDS:
        if command.startswith(("make ", "pip ", "export ", *SERVERS)):
            continue
        ended = run(command.replace("ID", job_id), env, tmp_path)
        # `check` says 0 also with warnings.
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        assert ended.stdout.strip(), f"{command} printed nothing"
        if command.startswith("harasocial-dispatch send "):
            job_id = ended.stdout.strip()
            (record,) = wait_until_ended(producer, [job_id])
            assert (record.state, record.error_code) == (State.FAILED, "10/2018278")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith(SERVERS)])
def test_the_servers_start_and_stop(
    command: str, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """They come up with what the README shows, and end at SIGTERM."""
    env = environment(settings, sandbox.url)
    log = tmp_path / "server.log"
    command = command.replace("5555", str(free_port()))
    with log.open("wb") as output:
        words = shlex.split(command)
        words[0] = str(shutil.which(words[0], path=env["PATH"]))
        server = subprocess.Popen(
            words, env=env, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        words = (b" ready.", b"Visit me at", b"Connected to")
        eventually(
            lambda: server.poll() is not None or any(w in log.read_bytes() for w in words),
            what=f"the start of {command}",
        )
        assert server.poll() is None, log.read_text()
        server.terminate()
        assert server.wait(20) in (0, -15)
    finally:
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    "code", [text for language, text in BLOCKS if language == "python"], ids=["enqueue", "flask"]
)
def test_the_python_code_runs(
    code: str, settings: Settings, producer: Producer, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The snippets run as they stand; the first one really enqueues."""
    script = tmp_path / "snippet.py"
    script.write_text(code)
    ended = run(f"python {script}", environment(settings, sandbox.url), tmp_path)
    assert ended.returncode == 0, ended.stderr
    if "job_id = enqueue(\n" in code:
        (record,) = producer.find_jobs()
        assert record.idempotency_key == "order-1001-paid"


def test_the_flask_app_answers_as_the_readme_says(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """202, again 202, 409 for a key of another message, 422 for an invalid one."""
    (code,) = [text for language, text in BLOCKS if language == "python" and "Flask" in text]
    script = tmp_path / "snippet.py"
    script.write_text(
        f"{code}\n"
        "body = {'recipient': {'id': '1'}, 'message': {'payload_id': 'p'}, 'page_id': '2'}\n"
        "for more in ({}, {}, {'metadata': 'm'}, {'page_id': 2}):\n"
        "    answer = app.test_client().post(\n"
        "        '/messages', json=body | more, headers={'Idempotency-Key': 'k'}\n"
        "    )\n"
        "    print(answer.status_code)\n"
    )
    ended = run(f"python {script}", environment(settings, sandbox.url), tmp_path)
    assert ended.stdout.split() == ["202", "202", "409", "422"], ended.stderr


def test_the_settings_named_are_settings() -> None:
    """Each HARASOCIAL_ variable of the README is one that the program reads."""
    known = {name.upper() for name in Settings.__dataclass_fields__}
    named = set(re.findall(r"HARASOCIAL_([A-Z_]+[A-Z])\b", README))
    assert named - {"TOKEN_FILE"} <= known


def test_the_links_lead_somewhere() -> None:
    """Links to files of the repository point to files that are there."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
