"""`replay` and `cancel`."""

from __future__ import annotations

import json
import time

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.schemas import QueueUnavailable, State

OTHER_PAGE = "600"


def test_a_failed_job_is_replayed_by_its_id(run, jobs):
    """The id alone is printed where no person reads."""
    job_id = jobs.failed()
    result = run("replay", job_id, job_id)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{job_id}\n", "")
    assert jobs.state(job_id) is State.QUEUED


def test_what_is_not_failed_is_named_with_its_state(run, jobs):
    """The failed ones among the ids are replayed all the same; the exit status is 1."""
    sent, failed = jobs.sent(), jobs.failed()
    result = run("replay", sent, failed, "nope", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "replayed": [failed],
        "not_replayed": {sent: "sent", "nope": None},
    }
    assert f"{sent} cannot be replayed: it is sent" in result.stderr
    assert "no job has the id 'nope'" in result.stderr
    assert jobs.state(sent) is State.SENT


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--error-code", "190"], {"b", "c"}),
        (["--page-id", OTHER_PAGE], {"c"}),
        (["--error-code", "190", "--page-id", OTHER_PAGE], {"c"}),
        (["--since", "1h"], {"a", "b", "c"}),
        (["--until", "1h"], set()),
        (["--all"], {"a", "b", "c"}),
    ],
)
def test_failed_jobs_are_replayed_by_what_they_have_in_common(run, jobs, options, expected):
    """A dry run counts the same jobs and leaves them as they are."""
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


def test_a_job_that_fails_again_at_once_is_replayed_once(run, jobs, monkeypatch):
    """A fast worker and a permanent error do not make an endless replay."""
    job_ids = {jobs.failed() for _ in range(3)}
    replay_many = Producer.replay_many

    def replay_and_fail(self, ids):
        done = replay_many(self, ids)
        jobs.end(State.FAILED, "10/2018278")
        return done

    monkeypatch.setattr(Producer, "replay_many", replay_and_fail)
    result = run("replay", "--all", "--yes", "--rate", "1000")
    assert sorted(result.stdout.split()) == sorted(job_ids)
    assert {jobs.producer.get_job(job_id).attempt_count for job_id in job_ids} == {2}


def test_a_filter_without_a_terminal_requires_yes(run, jobs):
    """Nobody can be asked, and many messages may be at stake."""
    job_id = jobs.failed()
    result = run("replay", "--all", stdin="y\n")
    assert result.exit_code == 2
    assert "--yes is required" in result.stderr
    assert jobs.state(job_id) is State.FAILED


@pytest.mark.parametrize(
    "arguments",
    [[], ["1f0c", "--all"], ["1f0c", "--error-code", "190"], ["--all", "--page-id", "1"]],
)
def test_ids_a_filter_or_all_must_be_named_and_one_of_them_only(run, arguments):
    """Anything else is wrong usage, also with --yes."""
    result = run("replay", *arguments, "--yes")
    assert result.exit_code == 2
    assert "one of the three" in result.stderr


def test_the_rate_spreads_jobs_over_time(run, jobs):
    """Five jobs at 20 a second take the time of four steps."""
    for _ in range(5):
        jobs.failed()
    began = time.monotonic()
    result = run("replay", "--all", "--yes", "--rate", "20")
    assert len(result.stdout.split()) == 5
    assert time.monotonic() - began >= 4 / 20


def test_nothing_to_replay_is_fine(run):
    """It says so."""
    result = run("replay", "--error-code", "190", "--yes")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no failed jobs found\n")


def test_when_redis_goes_away_it_says_how_many_were_replayed(run, jobs, monkeypatch):
    """The same command goes on with the others, since those are not failed any more."""
    for _ in range(3):
        jobs.failed()
    replay, calls = Ledger.replay, []

    def fail_at_second(self, job_ids):
        calls.append(job_ids)
        if len(calls) == 2:
            raise QueueUnavailable("Redis at test is away")
        return replay(self, job_ids)

    monkeypatch.setattr(Ledger, "replay", fail_at_second)
    result = run("replay", "--all", "--yes", "--rate", "10", "--json")
    replayed = json.loads(result.stdout)["replayed"]
    assert result.exit_code == 4
    assert [jobs.state(job_id) for job_id in replayed] == [State.QUEUED]
    assert "stopped: at least 1 of 3 were replayed" in result.stderr
    assert len(run("replay", "--all", "--yes").stdout.split()) == 2


def test_waiting_jobs_are_cancelled(run, jobs):
    """Queued and scheduled ones alike."""
    queued = jobs.enqueue()
    result = run("cancel", queued)
    assert (result.exit_code, result.stdout) == (0, f"{queued}\n")
    assert jobs.state(queued) is State.CANCELLED


def test_what_cannot_be_cancelled_is_named_with_its_state(run, jobs):
    """The exit status is 1 then."""
    sent, queued = jobs.sent(), jobs.enqueue()
    result = run("cancel", sent, queued, "nope", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "cancelled": [queued],
        "not_cancelled": {sent: "sent", "nope": None},
    }
    assert f"{sent} cannot be cancelled: it is sent" in result.stderr
