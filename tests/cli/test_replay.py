"""`replay`."""

from __future__ import annotations

import json
import os
import pty
import select
import time

import pytest
from harasocial_dispatch.ledger import AuditEntry, Ledger
from harasocial_dispatch.schemas import QueueUnavailable, State
from support.command_line import Jobs, Run
from support.failures import failing_at
from support.harness import DEADLINE_SECONDS

PAGE, OTHER_PAGE = "500725830264749", "600"
WINDOW_CLOSED = """\
Do not replay: 1 job
  1 job failed with 10/2018278: The messaging window is closed: the person has not written to the \
page lately.
    what to do: Do not replay until the person has written again; then the window is open for 24 \
hours.
warning: 1 job should not be replayed: it would fail again, or reach a person twice.
"""


def test_a_failed_job_is_replayed_by_its_id(run: Run, jobs: Jobs) -> None:
    """Without a terminal, only the id is printed; standard error has the cause of failure."""
    job_id = jobs.failed()
    result = run("replay", job_id, job_id)
    assert (result.exit_code, result.stdout) == (0, f"{job_id}\n")
    assert result.stderr == WINDOW_CLOSED
    assert jobs.state(job_id) is State.QUEUED


def test_a_job_that_has_not_failed_is_listed_with_its_state(run: Run, jobs: Jobs) -> None:
    """The failed jobs among the ids are still replayed, and the exit status is 1."""
    sent, failed = jobs.sent(), jobs.failed()
    result = run("replay", sent, failed, "nope", "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["replayed"] == [failed]
    assert printed["not_replayed"] == {sent: "sent", "nope": None}
    assert result.stderr == ""
    stderr = run("replay", sent, "nope").stderr
    assert f"{sent} cannot be replayed: it is sent" in stderr
    assert "no job has the id 'nope'" in stderr
    assert jobs.state(sent) is State.SENT


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--error-code", "190"], {"b", "c"}),
        (["--page-id", OTHER_PAGE], {"c"}),
        (["--error-code", "190", "--page-id", OTHER_PAGE], {"c"}),
        (["--error-code", "190", "--error-code", "10/2018278"], {"a", "b", "c"}),
        (["--page-id", OTHER_PAGE, "--page-id", PAGE, "--error-code", "190"], {"b", "c"}),
        (["--since", "1h"], {"a", "b", "c"}),
        (["--until", "1h"], set()),
        (["--all"], {"a", "b", "c"}),
        (["--fixable"], {"b", "c"}),
        (["--fixable", "--page-id", PAGE], {"b"}),
        (["--passing"], set()),
        (["--passing", "--fixable", "--since", "1h"], {"b", "c"}),
    ],
)
def test_failed_jobs_are_replayed_by_filters(
    run: Run, jobs: Jobs, options: list[str], expected: set[str]
) -> None:
    """A dry run counts the same jobs and does not change them."""
    by_name = {
        "a": jobs.failed("10/2018278"),
        "b": jobs.failed("190"),
        "c": jobs.failed("190", page_id=OTHER_PAGE),
    }
    jobs.sent()
    dry = run("replay", *options, "--dry-run", "--json")
    assert (dry.exit_code, json.loads(dry.stdout)["would_replay"]) == (0, len(expected))
    assert jobs.producer.count_states()[State.FAILED] == 3
    result = run("replay", *options, "--yes")
    assert result.exit_code == 0
    assert set(result.stdout.split()) == {by_name[name] for name in expected}
    assert {name for name, job in by_name.items() if jobs.state(job) is State.QUEUED} == expected


@pytest.mark.parametrize("by_ids", [True, False])
def test_causes_and_remedies_are_printed_before_the_prompt(
    run: Run, jobs: Jobs, by_ids: bool
) -> None:
    """Causes are grouped by error code, the most frequent first, as text and as JSON."""
    ids = [jobs.failed("190"), jobs.failed(), jobs.failed("190"), jobs.failed("weird\x1b[31m")]
    ids.append(jobs.failed("http_503"))
    which = ids if by_ids else ["--all"]
    dry = run("replay", *which, "--dry-run")
    lines = dry.stdout.splitlines()
    assert lines[0] == "Worth another try: 1 job"
    assert lines[1].startswith("  1 job failed with http_503: ")
    assert lines[3] == "Fix the cause, then replay: 3 jobs"
    assert lines[4].startswith("  2 jobs failed with 190: The token expired, was revoked")
    assert lines[5].startswith("    what to do: Set a new token in HARASOCIAL_TOKEN")
    assert lines[6].startswith("  1 job failed with weird")
    assert lines[6].isprintable()
    assert lines[8] == "Do not replay: 1 job"
    assert lines[9].startswith("  1 job failed with 10/2018278: ")
    assert [line for line in lines if line.startswith("warning: ")] == lines[11:13]
    assert lines[-1] == "5 jobs would be replayed"
    printed = json.loads(run("replay", *which, "--dry-run", "--json").stdout)
    assert [(c["error_code"], c["count"], c["replay"]) for c in printed["by_error_code"]] == [
        ("190", 2, "fixable"),
        ("10/2018278", 1, "never"),
        ("http_503", 1, "passing"),
        ("weird\x1b[31m", 1, "fixable"),
    ]
    assert printed["by_replay_kind"] == {"passing": 1, "fixable": 3, "never": 1}
    assert [f"warning: {text}" for text in printed["warnings"]] == lines[11:13]
    assert lines[4].endswith(printed["by_error_code"][0]["meaning"])
    assert lines[5].endswith(printed["by_error_code"][0]["what_to_do"])
    result = run("replay", *which, "--yes")
    assert result.stderr.splitlines() == lines[:-1]
    assert sorted(result.stdout.split()) == sorted(ids)


@pytest.mark.parametrize("by_ids", [True, False])
def test_the_prompt_follows_the_causes(program: list[str], jobs: Jobs, by_ids: bool) -> None:
    """A terminal gets a prompt, also for ids if there is a warning. "No" changes nothing."""
    job_id = jobs.failed()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program[0], [*program, "replay", job_id if by_ids else "--all"])
    seen = b""
    while b"[y/N]" not in seen:
        assert select.select([terminal], [], [], DEADLINE_SECONDS)[0], seen
        seen += os.read(terminal, 65536)
    os.write(terminal, b"n\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    text = seen.decode()
    assert text.index("what to do: Do not replay") < text.index("Send 1 job again?")
    assert text.index("warning: 1 job should not be replayed") < text.index("Send 1 job again?")
    assert os.waitstatus_to_exitcode(status) == 1
    assert jobs.state(job_id) is State.FAILED


def test_a_large_replay_never_blocks_redis(run: Run, jobs: Jobs) -> None:
    """Thousands of failed jobs are counted by index, without reading jobs or slow calls."""
    body = {"recipient": {"id": "2560816460648749"}, "message": {"payload_id": "p"}}
    jobs.producer.enqueue_many({**body, "page_id": str(i % 7 + 1)} for i in range(3000))
    jobs.end(State.FAILED, "190")
    client = jobs.ledger._client
    client.config_resetstat()
    dry = json.loads(
        run("replay", "--page-id", "1", "--page-id", "2", "--dry-run", "--json").stdout
    )
    everything = json.loads(run("replay", "--all", "--dry-run", "--json").stdout)
    counts = json.loads(run("errors", "--page-id", "1", "--page-id", "2", "--json").stdout)
    used = client.info("commandstats")
    assert (dry["would_replay"], everything["would_replay"]) == (858, 3000)
    assert counts == {"190": 858}
    assert "cmdstat_hgetall" not in used
    assert "cmdstat_zrevrangebyscore" not in used


@pytest.mark.parametrize("name", ["show", "cancel", "replay"])
def test_a_unique_prefix_of_an_id_is_enough(run: Run, jobs: Jobs, name: str) -> None:
    """A prefix has at least 8 characters. If it is ambiguous, the candidates are listed."""
    job_id = jobs.enqueue() if name == "cancel" else jobs.failed()
    result = run(name, job_id[:8].upper(), "--json")
    assert result.exit_code == 0
    assert job_id in result.stdout
    assert run(name, job_id[:7]).exit_code == 1
    prefix = f"{{{jobs.producer.settings.namespace}}}:job:"
    other = job_id[:8] + "f" * 24
    jobs.ledger._client.hset(prefix + other, mapping={"state": "failed"})
    result = run(name, job_id[:8], "--json")
    assert result.exit_code == 2
    assert json.loads(result.stderr)["error"]["candidates"] == sorted([job_id, other])
    assert jobs.ledger._client.hget(prefix + other, "state") == "failed"
    assert run(name, job_id, "--json").stdout != ""
    # Pattern characters have no special meaning.
    assert run(name, job_id[:8] + "*").exit_code == 1


def test_a_job_that_fails_again_at_once_is_replayed_once(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast worker and a permanent error do not cause an endless replay."""
    job_ids = {jobs.failed() for _ in range(3)}
    replay = Ledger.replay

    def replay_and_fail(self: Ledger, ids: list[str], audit: AuditEntry) -> list[State | None]:
        done = replay(self, ids, audit)
        jobs.end(State.FAILED, "10/2018278")
        return done

    monkeypatch.setattr(Ledger, "replay", replay_and_fail)
    result = run("replay", "--all", "--yes", "--rate", "1000")
    assert sorted(result.stdout.split()) == sorted(job_ids)
    assert {jobs.producer.get_job(job_id).attempt_count for job_id in job_ids} == {2}


def test_a_filter_without_a_terminal_requires_yes(run: Run, jobs: Jobs) -> None:
    """Without a terminal, a replay requires --yes or --dry-run."""
    job_id = jobs.failed()
    result = run("replay", "--all", stdin="y\n")
    assert result.exit_code == 2
    assert "--yes or --dry-run is required" in result.stderr
    assert jobs.state(job_id) is State.FAILED


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["1f0c", "--all"],
        ["1f0c", "--error-code", "190"],
        ["1f0c", "--passing"],
        ["--all", "--page-id", "1"],
        ["--all", "--fixable"],
    ],
)
def test_exactly_one_of_ids_filters_and_all_is_required(run: Run, arguments: list[str]) -> None:
    """Any other combination is a usage error, also with --yes."""
    result = run("replay", *arguments, "--yes")
    assert result.exit_code == 2
    assert "either by ID" in result.stderr


def test_the_rate_spreads_jobs_over_time(run: Run, jobs: Jobs) -> None:
    """Five jobs at 20 per second take at least four intervals."""
    for _ in range(5):
        jobs.failed()
    began = time.monotonic()
    result = run("replay", "--all", "--yes", "--rate", "20")
    assert len(result.stdout.split()) == 5
    assert time.monotonic() - began >= 4 / 20


def test_nothing_to_replay_is_not_an_error(run: Run) -> None:
    """A notice is printed."""
    result = run("replay", "--error-code", "190", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no failed jobs found\n")


def test_when_redis_fails_the_number_of_replayed_jobs_is_printed(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command replays the rest, because the replayed jobs are not failed anymore."""
    for _ in range(3):
        jobs.failed()
    error = QueueUnavailable("Redis at test is away")
    monkeypatch.setattr(Ledger, "replay", failing_at(2, error, Ledger.replay))
    result = run("replay", "--all", "--yes", "--rate", "10", "--json")
    replayed = json.loads(result.stdout)["replayed"]
    assert result.exit_code == 4
    assert [jobs.state(job_id) for job_id in replayed] == [State.QUEUED]
    assert "stopped: at least 1 of 3 were replayed" in result.stderr
    assert len(run("replay", "--all", "--yes").stdout.split()) == 2
