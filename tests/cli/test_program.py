"""The program as a whole: help, exit statuses, signals, terminals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from harasocial_dispatch.cli import commands
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import EnqueueUnknown, Settings, State
from support.command_line import Jobs, Run, read_line
from support.failures import raising
from support.harness import DEADLINE_SECONDS
from support.processes import run_program
from support.terminal import on_terminal

SEND = ("send", "--page-id", "500725830264749", "--recipient-id", "2560816460648749",
        "--payload-id", "p")  # fmt: skip
OURS = ["send", "enqueue", "worker", "flower", "results", "errors", "show", "stats", "watch",
        "replay", "cancel", "export", "check", "sandbox"]  # fmt: skip


@pytest.mark.parametrize("command", [[], *([name] for name in OURS)])
def test_help_works_with_broken_settings_and_without_redis(
    run: Run, environment: pytest.MonkeyPatch, command: list[str]
) -> None:
    """Each command's help has examples."""
    environment.setenv("HARASOCIAL_REDIS_URL", "nonsense")
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout == run(*command, "-h").stdout
    if command:
        assert f"Examples:\n    harasocial-dispatch {command[0]}" in result.stdout
    else:
        assert "_HARASOCIAL_DISPATCH_COMPLETE=bash_source" in result.stdout
        assert "..." not in result.stdout.partition("Options")[2]  # Nothing is cut at 80 columns.


def test_every_example_in_the_help_is_a_command_line_that_parses() -> None:
    """The test finds examples with options that were renamed."""
    examples = re.findall(
        r"^  harasocial-dispatch (.*)$",
        "\n".join(commands.commands[name].epilog or "" for name in OURS),
        re.MULTILINE,
    )
    assert len(examples) >= 2 * len(OURS)
    for example in examples:
        name, *arguments = shlex.split(re.sub("[|<].*", "", example))
        command = commands.commands[name]
        arguments = [__file__ if argument.startswith(("messages", "campaign")) else argument
                     for argument in arguments]  # fmt: skip
        # With the settings: click caches the help option of a command at the first call.
        with click.Context(commands, **commands.context_settings) as context:
            command.make_context(name, arguments, parent=context)


def test_the_version_is_shown(run: Run) -> None:
    """The version is printed on one line."""
    result = run("--version")
    assert result.exit_code == 0
    assert re.fullmatch(r"harasocial-dispatch \S.*\n", result.stdout)


@pytest.mark.parametrize(
    ("variables", "arguments", "status", "message"),
    [
        ({"HARASOCIAL_IN_FLIGHT": "x"}, ["stats"], 2, "Error: HARASOCIAL_IN_FLIGHT"),
        (
            {"HARASOCIAL_REDIS_URL": "redis://:pw@127.0.0.1:1/0"},
            ["stats"],
            4,
            "Error: Redis at 127.0.0.1:1/0 cannot be reached: Connection refused (is it running, "
            "and is HARASOCIAL_REDIS_URL right?)\n",
        ),
        ({"HARASOCIAL_REDIS_URL": "redis://:pw@127.0.0.1:1/0"}, SEND, 4, "nothing was enqueued"),
        ({}, ["show", "nope"], 1, "Error: no job has the id 'nope'"),
        ({}, ["results", "--state", "lost"], 2, "'lost'"),
        ({}, ["results", "--since", "soon"], 2, "'soon' is not a time"),
        ({}, ["results", "--since", "2h", "--until", "3h"], 2, "--since ("),
        ({}, ["errors", "--since", "2h", "--until", "3h"], 2, ") is after --until ("),
        ({}, ["export", "--since", "2h", "--until", "3h"], 2, "--since ("),
        ({}, ["replay", "--since", "2h", "--until", "3h", "--yes"], 2, "--since ("),
        ({}, ["results", "--since", "2h", "--since", "1h"], 2, "--since is given 2 times"),
        ({}, ["results", "--limit=1", "--page-id", "1", "--limit=1"], 2, "--limit is given 2"),
        ({}, ["export", "-o", "a", "--output", "b"], 2, "-o is given 2 times"),
        ({}, ["watch", "--every", "1", "--every", "2"], 2, "--every is given 2 times"),
        ({}, [*SEND, "--payload-id", "other"], 2, "--payload-id is given 2 times"),
        ({}, ["replay", "--yes", "--all", "--rate", "1", "--rate", "2"], 2, "--rate is given 2"),
        ({}, ["nonsense"], 2, "nonsense"),
    ],
)
def test_errors_are_a_message_and_a_status(
    run: Run,
    environment: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str] | tuple[str, str, str, str, str, str, str],
    status: int,
    message: str,
) -> None:
    """The error is on standard error, without a traceback or password."""
    for name, value in variables.items():
        environment.setenv(name, value)
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (status, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert ":pw@" not in result.stderr


@pytest.mark.parametrize(
    ("variables", "arguments", "error"),
    [
        ({}, ["results", "--since", "soon", "--json"], {"type": "usage", "exit_status": 2}),
        ({}, ["results", "--json", "--no-such"], {"type": "usage", "exit_status": 2}),
        ({}, ["--no-such", "results", "--json"], {"type": "usage", "exit_status": 2}),
        ({}, ["nonsense", "--json"], {"type": "usage", "exit_status": 2}),
        ({}, ["replay", "--json"], {"type": "usage", "exit_status": 2}),
        ({}, ["errors", "--json", "--since", "1h", "--since", "2h"], {"type": "usage"}),
        ({}, ["show", "nope", "--json"], {"type": "job_not_found", "job_id": "nope"}),
        ({"HARASOCIAL_IN_FLIGHT": "x"}, ["stats", "--json"], {"type": "settings"}),
        (
            {"HARASOCIAL_REDIS_URL": "redis://:pw@127.0.0.1:1/0"},
            ["stats", "--json"],
            {"type": "queue_unavailable", "exit_status": 4},
        ),
        (
            {},
            ["send", "--page-id", "x", "--recipient-id", "1", "--payload-id", "p", "--json"],
            {"type": "invalid_job", "exit_status": 2},
        ),
    ],
)
def test_with_json_an_error_is_one_object_on_standard_error(
    run: Run,
    environment: pytest.MonkeyPatch,
    variables: dict[str, str],
    arguments: list[str],
    error: dict[str, Any],
) -> None:
    """All kinds of errors are JSON. The exit status is the same as without --json."""
    for name, value in variables.items():
        environment.setenv(name, value)
    result = run(*arguments)
    assert result.stdout == ""
    printed = json.loads(result.stderr)["error"]
    assert printed.items() >= error.items()
    assert printed["message"]
    assert printed["exit_status"] == result.exit_code
    assert result.exit_code == run(*(a for a in arguments if a != "--json")).exit_code
    assert ":pw@" not in result.stderr
    assert ("fields" in printed) is (error["type"] == "invalid_job")


def test_json_after_two_dashes_is_a_value(run: Run) -> None:
    """After `--`, `--json` is a value."""
    assert run("show", "--", "--json").stderr.startswith("Error: no job has the id '--json'")


def test_a_lost_reply_prints_how_to_find_the_job(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome is unknown, but the error has the job's id."""
    lost = EnqueueUnknown("Redis did not answer", job_ids=["1f0c"])
    monkeypatch.setattr(Ledger, "enqueue", raising(lost))
    result = run(*SEND)
    assert result.exit_code == 4
    assert "harasocial-dispatch show 1f0c" in result.stderr


def test_a_bug_prints_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the file and the line, for a bug report."""

    def fail(settings: Settings) -> None:
        raise RuntimeError("\x1b[31moops")

    monkeypatch.setattr(import_module("harasocial_dispatch.cli.commands.check"), "inspect", fail)
    result = run("check")
    assert result.exit_code == 1
    assert "RuntimeError in test_program.py, line" in result.stderr
    assert result.stderr.strip().isprintable()


def test_a_command_imports_celery_only_when_it_uses_it() -> None:
    """The import takes longer than most commands."""
    code = "import sys, harasocial_dispatch.cli; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in ended.stdout.split()}
    assert not {"celery", "kombu", "flower", "requests", "rich"} & imported


def test_ctrl_c_ends_a_wait_with_130(program: list[str], jobs: Jobs) -> None:
    """The job's id is printed before the wait."""
    process = subprocess.Popen(
        [*program, *SEND, "--wait", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    job_id = read_line(process).strip()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert "Interrupted." in stderr
    assert "Traceback" not in stderr
    assert jobs.state(job_id) is State.QUEUED


def test_a_closed_pipe_prints_no_error(
    program: list[str], jobs: Jobs, environment: pytest.MonkeyPatch
) -> None:
    """For example with `results --json | head`."""
    # Unbuffered output would leave no data that could fail at exit.
    environment.delenv("PYTHONUNBUFFERED", raising=False)
    jobs.producer.enqueue_many(
        {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}
        for _ in range(500)
    )
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run(
        [*program, "results", "--json", "--limit", "500"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, "")


def test_on_a_terminal_send_prints_the_next_command(program: list[str], jobs: Jobs) -> None:
    """A terminal gets a hint instead of only the id."""
    text, status = on_terminal([*program, *SEND])
    assert status == 0
    (job,) = jobs.producer.find_jobs()
    assert text == f"enqueued {job.job_id}; to show it: harasocial-dispatch show {job.job_id}\n"


@pytest.mark.parametrize(
    ("answer", "status", "state"), [("y\n", 0, "queued"), ("n\n", 1, "failed")]
)
def test_on_a_terminal_replay_asks_for_confirmation(
    program: list[str], jobs: Jobs, answer: str, status: int, state: str
) -> None:
    """The prompt has the number of jobs."""
    job_id = jobs.failed()
    text, ended = on_terminal([*program, "replay", "--all"], answer)
    assert "Send 1 job again? [y/N]: " in text
    assert ended == status
    assert jobs.state(job_id).value == state


def test_on_a_terminal_a_file_is_enqueued_with_a_progress_bar(
    program: list[str], jobs: Jobs, tmp_path: Path
) -> None:
    """At the end, the bar is removed and only the summary remains."""
    file = tmp_path / "a.csv"
    file.write_text("recipient_id,payload_id,page_id\n" + "1,p,2\n" * 700)
    text, status = on_terminal([*program, "enqueue", str(file)])
    assert status == 0
    assert text.splitlines()[-1].endswith("700 new, 0 already there, 0 rejected")
    assert jobs.producer.count_states()[State.QUEUED] == 700


def test_a_progress_bar_has_the_count_the_rate_and_the_time_left(
    program: list[str], jobs: Jobs, tmp_path: Path
) -> None:
    """There is a bar while the file is read, and while its rows are enqueued."""
    file = tmp_path / "a.csv"
    file.write_text(
        "recipient_id,payload_id,page_id\n" + "".join(f"{i},p,2\n" for i in range(9000))
    )
    command = [*program, "enqueue", str(file), "--campaign", "sale", "--yes"]
    text, status = on_terminal(command, term="xterm")
    assert status == 0
    for label in ("reading", "enqueuing"):
        assert re.search(rf"{label} .* [0-9,]+ rows [0-9,]+/s .*left", text), text


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_respected(
    program: list[str], jobs: Jobs, monkeypatch: pytest.MonkeyPatch, no_color: str, colored: bool
) -> None:
    """Both click and rich respect it."""
    monkeypatch.setenv("NO_COLOR", no_color)
    text, _ = on_terminal([*program, "show", jobs.failed()], term="xterm")
    assert ("\x1b[31m" in text) is colored


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tôken"])
def test_an_invalid_token_is_wrong_usage(run: Run, token: str) -> None:
    """The token is checked before anything is started."""
    result = run("sandbox", "--token", token)
    assert result.exit_code == 2
    assert "--token" in result.stderr


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_prints_its_settings_and_serves(
    program: list[str], end: signal.Signals
) -> None:
    """--redis also starts a Redis server. SIGINT and SIGTERM stop both, with exit status 0."""
    process = subprocess.Popen(
        [*program, "sandbox", "--token", "a$b", "--redis"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        export, *pairs = shlex.split(read_line(process))
        settings = dict(pair.split("=", 1) for pair in pairs)
        assert export == "export"
        assert settings["HARASOCIAL_TOKEN"] == "a$b"
        root = settings["HARASOCIAL_API_URL"].removesuffix("/social/messages.json")
        with urllib.request.urlopen(f"{root}/_sandbox/health", timeout=DEADLINE_SECONDS) as reply:
            assert json.load(reply) == {"healthy": True}
        asked = run_program(*program, "stats", "--json", check=True, env=os.environ | settings)
        assert json.loads(asked.stdout)["redis"] in settings["HARASOCIAL_REDIS_URL"]
        process.send_signal(end)
        assert process.wait(DEADLINE_SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_wrong_usage(run: Run, redis_url: str) -> None:
    """The error names the port."""
    port = redis_url.rsplit(":", maxsplit=1)[-1].split("/", maxsplit=1)[0]
    result = run("sandbox", "--port", port)
    assert result.exit_code == 2
    assert f"cannot listen on {port}" in result.stderr


def test_a_sandbox_with_a_closed_pipe_does_not_report_the_port(program: list[str]) -> None:
    """A broken pipe is not reported as an error of the port."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(
        [*program, "sandbox"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert (ended.returncode, ended.stderr) == (141, "")
