"""`audit`, and the operators of replays in `show`."""

from __future__ import annotations

import getpass
import json
import socket

import pytest
from harasocial_dispatch.schemas import State
from support.command_line import Jobs, Run

PAGE = "500725830264749"
ME = f"{getpass.getuser()}@{socket.gethostname()}"


def test_actions_on_the_command_line_are_listed(run: Run, jobs: Jobs) -> None:
    """Entries have operator, client, jobs and count, the latest first, but no recipients."""
    jobs.failed("190")
    jobs.failed("190")
    waiting = jobs.enqueue()
    assert run("replay", "--error-code", "190", "--yes").exit_code == 0
    assert run("cancel", waiting).exit_code == 0
    assert run("cancel", "--page-id", PAGE, "--yes").exit_code == 0
    jobs.producer.replay(jobs.failed(), by="a web app")

    printed = [json.loads(line) for line in run("audit", "--json").stdout.splitlines()]

    facts = ("action", "by", "via", "count", "filter")
    assert sorted([entry[name] for name in facts] for entry in printed[1:]) == [
        ["cancel", ME, "cli", 1, {"job_id": [waiting]}],
        ["cancel", ME, "cli", 2, {"page_id": [PAGE]}],
        ["replay", ME, "cli", 2, {"error_code": ["190"]}],
    ]
    assert [printed[0][name] for name in ("action", "by", "via")] == [
        "replay", "a web app", "python",
    ]  # fmt: skip
    assert printed == sorted(printed, key=lambda entry: entry["at"], reverse=True)
    text = run("audit").stdout
    assert all(word in text for word in (ME, "cancel", "replay", f"page_id={PAGE}"))
    assert len(run("audit", "--limit", "2", "--json").stdout.splitlines()) == 2
    assert "the latest 2" in run("audit", "--limit", "2").stderr


def test_an_empty_result_prints_a_notice(run: Run, jobs: Jobs) -> None:
    """The notice has the retention of entries."""
    jobs.producer.replay(jobs.failed())
    result = run("audit", "--until", "1h")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no entries found; they are kept for 90 days" in result.stderr
    assert run("audit", "--until", "1h", "--json").stdout == ""
    assert len(run("audit", "--since", "1h", "--json").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments", [["--since", "1h", "--until", "2h"], ["--since", "soon"], ["--limit", "0"]]
)
def test_invalid_options_are_rejected(run: Run, arguments: list[str]) -> None:
    """Invalid options are a usage error."""
    assert run("audit", *arguments).exit_code == 2


def test_a_jobs_history_includes_its_replays_in_order(run: Run, jobs: Jobs) -> None:
    """Replays are listed between the attempts, with their operators."""
    job_id = jobs.failed()
    run("replay", job_id)
    jobs.end(State.SENT)
    lines = run("show", job_id).stdout.splitlines()
    events = [line for line in lines if any(word in line for word in ("attempt ", "replayed"))]
    assert [f"replayed   by {ME} (cli)" in line for line in events] == [False, True, False]
    replays = json.loads(run("show", job_id, "--json").stdout)["replays"]
    assert [(replay["by"], replay["via"]) for replay in replays] == [(ME, "cli")]
