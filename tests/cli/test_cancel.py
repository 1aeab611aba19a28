"""`cancel`, by id and by filters."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harasocial_dispatch.ledger.scripts import Scripts
from harasocial_dispatch.schemas import QueueUnavailable, State
from support.command_line import Jobs, Run
from support.harness import DEADLINE_SECONDS
from support.processes import run_program

PAGE, OTHER_PAGE = "500725830264749", "600"


def test_waiting_jobs_are_canceled(run: Run, jobs: Jobs) -> None:
    """Queued and scheduled jobs are canceled."""
    queued = jobs.enqueue()
    result = run("cancel", queued)
    assert (result.exit_code, result.stdout) == (0, f"{queued}\n")
    assert jobs.state(queued) is State.CANCELLED


def test_a_job_that_cannot_be_canceled_is_listed_with_its_state(run: Run, jobs: Jobs) -> None:
    """The exit status is 1."""
    sent, queued = jobs.sent(), jobs.enqueue()
    result = run("cancel", sent, queued, "nope", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "cancelled": [queued],
        "not_cancelled": {sent: "sent", "nope": None},
    }
    assert f"{sent} cannot be canceled: it is sent" in run("cancel", sent).stderr


def test_a_dry_run_by_id_cancels_nothing(run: Run, jobs: Jobs) -> None:
    """The output has the jobs that can be canceled, and the state of the others."""
    sent, queued = jobs.sent(), jobs.enqueue()
    result = run("cancel", sent, queued, "--dry-run", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"would_cancel": 1, "not_cancelled": {sent: "sent"}}
    assert run("cancel", queued, "--dry-run").stdout == f"{queued} would be canceled\n"
    assert jobs.state(queued) is State.QUEUED


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--page-id", OTHER_PAGE], {"other page"}),
        (["--page-id", OTHER_PAGE, "--page-id", PAGE], {"queued", "scheduled", "other page"}),
        (["--state", "scheduled"], {"scheduled"}),
        (["--page-id", PAGE, "--state", "queued"], {"queued"}),
        (["--payload-id", "__hrf_f_1", "--since", "1h"], {"queued", "scheduled", "other page"}),
        (["--payload-id", "unknown"], set()),
        (["--until", "1h"], set()),
        (["--error-code", "190"], set()),
    ],
)
def test_waiting_jobs_are_canceled_by_filters(
    run: Run, jobs: Jobs, options: list[str], expected: set[str]
) -> None:
    """A dry run counts the same jobs and does not change them. The breakdown is printed first."""
    in_an_hour = datetime.now(timezone.utc) + timedelta(hours=1)
    sent = jobs.sent()
    by_name = {
        "scheduled": jobs.enqueue(send_at=in_an_hour),
        "queued": jobs.enqueue(),
        "other page": jobs.enqueue(page_id=OTHER_PAGE),
    }
    payload = jobs.producer.get_job(sent).job["message"]["payload_id"]
    options = [payload if option == "__hrf_f_1" else option for option in options]

    dry = run("cancel", *options, "--dry-run", "--json")
    plan = json.loads(dry.stdout)
    assert (dry.exit_code, plan["would_cancel"]) == (0, len(expected))
    assert sum(plan["by_page"].values()) == sum(plan["by_state"].values()) == len(expected)
    assert jobs.producer.count_states()[State.CANCELLED] == 0
    lines = run("cancel", *options, "--dry-run").stdout.splitlines()
    count = "1 job" if len(expected) == 1 else f"{len(expected)} jobs"
    assert lines[-1] == f"{count} would be canceled"

    result = run("cancel", *options, "--yes")
    assert result.exit_code == 0
    assert result.stdout == (f"canceled {count}\n" if expected else "")
    assert result.stderr.splitlines() == (
        lines[:-1] or ["no matching waiting jobs found; nothing to cancel"]
    )
    canceled = {name for name, job in by_name.items() if jobs.state(job) is State.CANCELLED}
    assert canceled == expected
    assert jobs.state(sent) is State.SENT
    again = run("cancel", *options, "--yes", "--json")
    assert (again.exit_code, json.loads(again.stdout)["cancelled_count"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "either by ID"),
        (["1f0c", "--page-id", "1"], "either by ID"),
        (["1f0c", "--payload-id", "x"], "either by ID"),
        (["--yes"], "either by ID"),
        (["--state", "sent", "--yes"], "the state sent cannot be canceled"),
        (["--state", "sending", "--yes"], "only those in scheduled, queued, retrying can"),
        (["--since", "1h", "--until", "2h", "--yes"], "is after --until"),
        (["--since", "soon", "--yes"], "is not a time"),
        (["--page-id", "1"], "--yes or --dry-run is required"),
    ],
)
def test_wrong_usage_cancels_nothing(
    run: Run, jobs: Jobs, arguments: list[str], message: str
) -> None:
    """The exit status is 2. Without a terminal, --yes is required."""
    job_id = jobs.enqueue(page_id="1")
    result = run("cancel", *arguments, stdin="y\n")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert jobs.state(job_id) is State.QUEUED


@pytest.mark.parametrize(("answer", "state"), [(b"n\n", "queued"), (b"y\n", "cancelled")])
def test_the_prompt_follows_the_breakdown(
    program: list[str], jobs: Jobs, answer: bytes, state: str
) -> None:
    """On a terminal, the answer "no" changes nothing, and the exit status is 1."""
    job_id = jobs.enqueue()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program[0], [*program, "cancel", "--page-id", PAGE])
    seen = b""
    while b"[y/N]" not in seen:
        assert select.select([terminal], [], [], 20)[0], seen
        seen += os.read(terminal, 65536)
    os.write(terminal, answer)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = seen.decode()
    assert text.index(f"page {PAGE}: 1 job") < text.index("Cancel 1 job?")
    assert os.waitstatus_to_exitcode(status) == (1 if answer == b"n\n" else 0)
    assert jobs.state(job_id).value == state


def test_an_interrupted_cancellation_is_finished_by_the_same_command(
    program: list[str], jobs: Jobs
) -> None:
    """Ctrl-C stops after a step. The audit has the exact number of canceled jobs."""
    body = {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "p"}}
    jobs.producer.enqueue_many({**body, "page_id": PAGE} for _ in range(20_000))
    command = [*program, "cancel", "--page-id", PAGE, "--yes"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not jobs.producer.count_states()[State.CANCELLED] and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
    canceled = jobs.producer.count_states()[State.CANCELLED]
    assert process.returncode == 130, stderr
    assert 0 < canceled < 20_000
    assert "of 20000 were canceled; run the same command to cancel the rest" in stderr

    done = run_program(*command, check=True)
    assert done.stdout == f"canceled {20_000 - canceled} jobs\n"
    states = jobs.producer.count_states()
    assert (states[State.CANCELLED], states[State.QUEUED]) == (20_000, 0)
    assert [entry.count for entry in jobs.ledger.reader.audit()] == [20_000 - canceled, canceled]


def test_when_redis_fails_the_number_of_canceled_jobs_is_printed(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is 4."""
    body = {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "p"}}
    jobs.producer.enqueue_many({**body, "page_id": PAGE} for _ in range(500))
    write, calls = Scripts.run, []

    def fail_at_third(self: Scripts, connection: Any, name: str, *args: Any) -> Any:
        if name == "cancel_matching" and args[1]:
            calls.append(name)
            if len(calls) == 3:
                raise QueueUnavailable("Redis at test is away")
        return write(self, connection, name, *args)

    monkeypatch.setattr(Scripts, "run", fail_at_third)
    result = run("cancel", "--page-id", PAGE, "--yes", "--json")
    assert result.exit_code == 4
    count = json.loads(result.stdout)["cancelled_count"]
    assert 0 < count < 500
    assert f"stopped: at least {count} of 500 were canceled" in result.stderr
    assert jobs.producer.count_states()[State.CANCELLED] == count


def test_a_large_cancellation_never_blocks_redis(run: Run, jobs: Jobs) -> None:
    """Each call scans a bounded number of jobs, and takes a few milliseconds in Redis."""
    body = {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "p"}}
    jobs.producer.enqueue_many({**body, "page_id": PAGE} for _ in range(20_000))
    client = jobs.ledger._client
    client.config_resetstat()
    cpu_before = cpu_seconds(client)
    result = run("cancel", "--page-id", PAGE, "--yes", "--json")
    cpu = cpu_seconds(client) - cpu_before
    assert json.loads(result.stdout)["cancelled_count"] == 20_000
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    # One step to count and one to cancel, for each hundred jobs.
    assert calls >= 2 * 20_000 / 100
    # Measure CPU time, because parallel tests affect the elapsed time.
    assert cpu / calls < 0.005


def cpu_seconds(client: Any) -> float:
    used: dict[str, float] = client.info("cpu")
    return used["used_cpu_user"] + used["used_cpu_sys"]
