"""The commands and the code in the documents work as described."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.documents import BLOCKS, ROOT, RUN, Block, blocks_of, name_of
from support.forked import run_script
from support.harness import DEADLINE_SECONDS, StartWorker, environment, eventually, free_port

#: A page runs many commands, one after the other.
pytestmark = pytest.mark.timeout(900)

#: Commands that run until they are stopped, with the text that each prints when it is ready.
SERVERS = {
    "harasocial-dispatch worker": b" ready.",
    "harasocial-dispatch flower": b"Visit me at",
    "harasocial-dispatch sandbox": b"export ",
    "harasocial-dispatch watch": b" ",
}
#: First words of commands that are run.
PROGRAMS = {"make", "pip", "export", "harasocial-dispatch"}
#: Characters that only a shell interprets. A command without them is run without a shell.
SHELL_SYNTAX = set("|&;<>()$`*?[]{}~#!\\\n")
NOTES = {"", "not run", "exit status", "file", "output of"}
#: How blocks of each language are treated. "toctree" and similar are directives of the site.
LANGUAGES = {"console", "python", "json", "yaml", "text", "ini"}

#: Not needed for an installation. Other tests may write to these folders at the same time.
_IGNORED = shutil.ignore_patterns(".*", "tests", "docs", "build", "__pycache__", "*.egg-info")

RUNNABLE = [block for block in BLOCKS if block.note != "not run"]
COMMANDS = [
    command for block in RUNNABLE if block.language == "console" for command in block.commands
]


def matching(*beginnings: str) -> list[str]:
    return sorted({command for command in COMMANDS if command.startswith(beginnings)})


def run(command: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_is_of_a_kind_that_is_tested(block: Block) -> None:
    """A new language, note or program needs a test, or a reason why it cannot be tested."""
    assert block.note in NOTES, block.note
    if block.note == "not run":
        assert block.value, "give the reason"
        return
    assert block.language in LANGUAGES or block.language.startswith("{"), block.language
    if block.language == "console":
        assert block.commands, "no line begins with `$ `"
        unknown = [line for line in block.commands if line.split()[0] not in PROGRAMS]
        assert unknown == [], "no test runs these"


PARSERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "yaml": yaml.safe_load,
}


@pytest.mark.parametrize(
    "block", [block for block in RUNNABLE if block.language in PARSERS], ids=str
)
def test_data_can_be_parsed(block: Block) -> None:
    PARSERS[block.language](block.text)


@pytest.mark.parametrize("command", matching("make "))
def test_the_make_targets_exist(command: str) -> None:
    """`make demo` is run by the test of the demo, and `make test` is running now."""
    ended = run(f"{command} --dry-run", dict(os.environ), ROOT)
    assert ended.returncode == 0, ended.stderr


def test_the_installation_commands_install_this_package(tmp_path: Path) -> None:
    """They run in a copy of the tree, with the packages that are installed here."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=_IGNORED)
    for command in matching("pip "):
        report = tmp_path / "report.json"
        # Nothing is downloaded: setuptools and all dependencies are those of this environment.
        offline = f"--dry-run --no-index --no-build-isolation --report {report}"
        ended = run(f"{sys.executable} -m {command} {offline}", dict(os.environ), clone)
        assert ended.returncode == 0, ended.stderr
        (package,) = json.loads(report.read_text())["install"]
        assert package["metadata"]["name"] == "harasocial-dispatch"
        assert package["download_info"]["url"] == clone.as_uri()
        assert ("all" in package.get("requested_extras", [])) == ("[all]" in command)


def starts_a_server(command: str) -> bool:
    return command.startswith(tuple(SERVERS))


def pages_to_run() -> Iterator[Path]:
    for page in RUN:
        blocks = [block for block in RUNNABLE if block.page == page]
        console = [command for block in blocks for command in block.commands]
        if any(block.language == "python" for block in blocks) or any(
            command.startswith("harasocial-dispatch") and not starts_a_server(command)
            for command in console
        ):
            yield page


@pytest.mark.parametrize("page", list(pages_to_run()), ids=name_of)
def test_a_page_works_from_top_to_bottom(
    page: Path,
    settings: Settings,
    producer: Producer,
    sandbox: Sandbox,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """Its commands and code run in order. `id` is the job that was enqueued last."""
    start_worker()
    reader = Reader(environment(settings, sandbox.url), tmp_path, producer)
    for block in blocks_of(page):
        reader.do(block)


class Reader:
    """Runs everything that a page shows, in its own folder."""

    def __init__(self, env: dict[str, str], folder: Path, producer: Producer) -> None:
        self._env = env
        self._folder = folder
        self._producer = producer
        self._job_id = "ID"

    def do(self, block: Block) -> None:
        if block.note == "file":
            (self._folder / block.value).write_text(block.text, encoding="utf-8")
        elif block.note == "output of":
            ended = self._run(block, block.value, 0)
            assert shape(json.loads(ended.stdout)) == shape(json.loads(block.text)), str(block)
        elif block.note != "not run" and block.language == "python":
            script = self._folder / "snippet.py"
            script.write_text(block.text, encoding="utf-8")
            ended = self._run(block, f"python {script}", 0)
        elif block.note != "not run" and block.language == "console":
            status = int(block.value) if block.note == "exit status" else 0
            for command in block.commands:
                if command.startswith("harasocial-dispatch") and not starts_a_server(command):
                    self._command(block, command, status)

    def _command(self, block: Block, command: str, status: int) -> None:
        ended = self._run(block, command, status)
        assert ended.stdout.strip() or ended.stderr.strip(), f"{block}: {command} printed nothing"
        words = shlex.split(command)
        if words[1] == "send" and "--now" not in words and not status:
            self._job_id = (
                ended.stdout.split()[0]
                if "--json" not in words
                else json.loads(ended.stdout)["job_id"]
            )
        if words[1] in ("send", "enqueue", "replay"):
            self._settle()

    def _run(self, block: Block, command: str, status: int) -> subprocess.CompletedProcess[str]:
        command = command.replace("ID", self._job_id)
        if command.startswith("harasocial-dispatch") and not SHELL_SYNTAX & set(command):
            words = shlex.split(command)
            ended = run_script(words, self._env, self._folder, timeout=DEADLINE_SECONDS)
        else:
            ended = run(command, self._env, self._folder)
        assert ended.returncode == status, f"{block}: {command}\n{ended.stdout}\n{ended.stderr}"
        return ended

    def _settle(self) -> None:
        """Wait until the worker has nothing to send, like a reader does."""
        eventually(
            lambda: (
                not {State.QUEUED, State.SENDING, State.RETRYING}
                & {state for state, count in self._producer.count_states().items() if count}
            ),
            what="the end of the jobs",
        )


def shape(value: Any) -> Any:
    """Return a JSON value with types instead of texts and numbers."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return None if value is None else type(value).__name__


@pytest.mark.parametrize("command", matching(*SERVERS))
def test_the_servers_start_and_stop(
    command: str, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """They start with the documented options, and end after SIGTERM."""
    env = environment(settings, sandbox.url)
    log = tmp_path / "server.log"
    words = shlex.split(command.replace("5555", str(free_port())))
    words[0] = str(shutil.which(words[0], path=env["PATH"]))
    ready = next(text for beginning, text in SERVERS.items() if command.startswith(beginning))
    with log.open("wb") as output:
        server = subprocess.Popen(
            words, env=env, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        eventually(
            lambda: server.poll() is not None or ready in log.read_bytes(),
            what=f"the start of {command}",
        )
        assert server.poll() is None, log.read_text()
        server.terminate()
        assert server.wait(DEADLINE_SECONDS) in (0, -15)
    finally:
        server.kill()
        server.wait()


def test_the_flask_app_answers_as_documented(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """202, again 202, 409 for a key of another message, 422 for an invalid message."""
    (code,) = [b.text for b in RUNNABLE if b.language == "python" and "from flask" in b.text]
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
