"""`results`, `errors`, `show` and `stats`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from click.testing import Result
from harasocial_dispatch.cli.output.pause_view import pause_rows
from harasocial_dispatch.cli.output.times import local
from harasocial_dispatch.ledger import Claim, Ledger, Pause
from harasocial_dispatch.schemas import LaneVerdict, OutcomeClass, State
from harasocial_dispatch.schemas.language import LANGUAGES, Language
from harasocial_dispatch.schemas.pause_reasons import PAUSE_REASONS
from harasocial_dispatch.worker.outcome.policy import pause_seconds
from support.command_line import Jobs, Run
from support.harness import present
from support.results import make_result

PAGE, OTHER_PAGE, RECIPIENT = "500725830264749", "600", "2560816460648749"
HOSTILE = "\x1b[31mred\x9b2J [bold]x[/bold]"


def listed(result: Result) -> set[str]:
    """Return the ids of the jobs that `results --json` printed."""
    assert result.exit_code == 0
    return {json.loads(line)["job_id"] for line in result.stdout.splitlines()}


def test_results_applies_all_filters(run: Run, jobs: Jobs) -> None:
    """Filters by state, error code, page and time work alone and together."""
    sent = jobs.sent()
    window = jobs.failed("10/2018278")
    other = jobs.failed("190", page_id=OTHER_PAGE)
    queued = jobs.enqueue()
    assert listed(run("results", "--json")) == {sent, window, other, queued}
    assert listed(run("results", "--json", "--state", "sent")) == {sent}
    assert listed(run("results", "--json", "--state", "failed")) == {window, other}
    assert listed(run("results", "--json", "--error-code", "190")) == {other}
    assert listed(run("results", "--json", "--page-id", PAGE)) == {sent, window, queued}
    assert listed(run("results", "--json", "--state", "failed", "--page-id", PAGE)) == {window}
    several = ("--error-code", "190", "--error-code", "10/2018278")
    assert listed(run("results", "--json", *several)) == {window, other}
    assert listed(run("results", "--json", "--state", "sent", "--state", "queued")) == {
        sent,
        queued,
    }
    assert listed(run("results", "--json", *several, "--page-id", OTHER_PAGE)) == {other}
    assert listed(run("results", "--json", "--since", "2h")) == {sent, window, other, queued}
    assert listed(run("results", "--json", "--until", "2h")) == set()
    assert len(listed(run("results", "--json", "--limit", "2"))) == 2


def test_results_prints_a_table(run: Run, jobs: Jobs) -> None:
    """Each job has one line, with local times and without the recipient."""
    job_id = jobs.failed(message="outside of the window")
    key = f"{{{jobs.producer.settings.namespace}}}:job:{job_id}"
    jobs.ledger._client.hset(key, "enqueued_at", "1700000000000")
    header, line = run("results").stdout.splitlines()
    assert header.split() == [
        "time",
        "state",
        "error_code",
        "page",
        "payload",
        "job",
        "id",
        "message",
    ]
    when = present(jobs.producer.get_job(job_id).finished_at).astimezone()
    assert line.startswith(f"{when:%Y-%m-%d %H:%M:%S}  failed  10/2018278  {PAGE}")
    assert line.endswith(f"{job_id}  outside of the window")
    assert RECIPIENT not in line


def test_results_prints_a_notice_if_there_are_more_or_none(run: Run, jobs: Jobs) -> None:
    """Notices are on standard error, so that standard output has only data."""
    assert "no jobs found" in run("results").stderr
    jobs.enqueue()
    jobs.enqueue()
    assert "there may be more" in run("results", "--limit", "2").stderr
    assert run("results", "--limit", "3").stderr == ""


def test_errors_counts_by_code(run: Run, jobs: Jobs) -> None:
    """The most frequent code is first, with the latest message; filters apply."""
    for _ in range(2):
        jobs.failed("190", message="token expired")
    jobs.failed("551", message="person unavailable", page_id=OTHER_PAGE)
    assert json.loads(run("errors", "--json").stdout) == {"190": 2, "551": 1}
    assert list(json.loads(run("errors", "--json").stdout)) == ["190", "551"]
    assert json.loads(run("errors", "--json", "--page-id", OTHER_PAGE).stdout) == {"551": 1}
    assert json.loads(run("errors", "--json", "--error-code", "551").stdout) == {"551": 1}
    both = ("--page-id", OTHER_PAGE, "--page-id", PAGE)
    assert json.loads(run("errors", "--json", *both, "--until", "0s").stdout) == {
        "190": 2,
        "551": 1,
    }
    assert json.loads(run("errors", "--json", "--since", "1h").stdout) == {"190": 2, "551": 1}
    tomorrow = datetime.now(timezone.utc) + timedelta(days=1)
    assert json.loads(run("errors", "--json", "--since", tomorrow.isoformat()).stdout) == {}
    lines = run("errors").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["190", "2"], ["551", "1"]]
    assert lines[1].endswith("token expired")
    assert "The token expired, was revoked, or belongs to another page." in lines[1]


def test_errors_prints_a_notice_if_there_are_none(run: Run) -> None:
    """With --json, the output is still valid JSON."""
    assert (run("errors").stdout, run("errors").stderr) == ("", "no failed jobs\n")
    assert run("errors", "--json").stdout == "{}\n"


def test_show_json_is_the_complete_record(run: Run, jobs: Jobs) -> None:
    """The JSON has the body as it was sent, and times in UTC."""
    job_id = jobs.failed(metadata="order 1001", idempotency_key="k-1")
    shown = json.loads(run("show", job_id, "--json").stdout)
    assert shown == jobs.producer.get_job(job_id).as_json()
    assert shown["job"]["recipient"]["id"] == RECIPIENT
    assert shown["finished_at"].endswith("Z")
    assert [attempt["error_code"] for attempt in shown["attempts"]] == ["10/2018278"]


def test_show_prints_the_attempts_in_order(run: Run, jobs: Jobs) -> None:
    """Each attempt has its reply. Only the end of the recipient's id is shown."""
    job_id = jobs.failed(metadata="order 1001")
    jobs.producer.replay(job_id, by="thao")
    jobs.end(State.SENT)
    text = run("show", job_id).stdout
    assert RECIPIENT not in text
    assert "************8749" in text
    assert "order 1001" in text
    timeline = [line.split(maxsplit=2)[-1] for line in text.split("\n\n")[1].splitlines()[1:]]
    assert timeline == [
        "enqueued",
        "attempt 1  HTTP 400 after 5 ms; 10/2018278: refused",
        "replayed   by thao (python)",
        "attempt 2  HTTP 200 after 5 ms",
        "sent",
    ]


def test_show_prints_the_meaning_and_remedy_of_an_error_code(run: Run, jobs: Jobs) -> None:
    """Each has one line. For an unknown code, the text refers to the API's message."""
    window = run("show", jobs.failed("10/2018278")).stdout
    assert "meaning:         The messaging window is closed" in window
    assert "what to do:      Do not replay until the person has written again" in window

    unknown = run("show", jobs.failed("4711", "the API's own words")).stdout
    assert "error message:   the API's own words" in unknown
    assert "meaning:         This code is not in the table" in unknown
    assert "what to do:      Read the message, and replay when" in unknown

    # No action is needed for a job that is retried automatically.
    retrying = jobs.enqueue()
    jobs.end(State.RETRYING, "http_503")
    text = run("show", retrying).stdout
    assert "meaning:         The API was overloaded" in text
    assert "to do:" not in text


def test_an_unknown_id_is_status_1(run: Run) -> None:
    """The error has a message, and standard output is empty."""
    result = run("show", "nope", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no job has the id 'nope'" in result.stderr


@pytest.mark.parametrize("command", ["results", "errors", "show"])
def test_hostile_texts_are_sanitized(run: Run, jobs: Jobs, command: str) -> None:
    """Control characters are removed, on a terminal and in JSON."""
    job_id = jobs.failed(
        error_code=HOSTILE, message=HOSTILE, metadata=HOSTILE.replace("\x9b", "\n")
    )
    arguments = [command, job_id] if command == "show" else [command]
    for options in ([], ["--json"]):
        result = run(*arguments, *options)
        assert result.exit_code == 0
        assert all(line.isprintable() for line in result.stdout.splitlines())
        assert "[bold]x[/bold]" in result.stdout


def test_an_invalid_job_of_another_client_is_shown_partially(run: Run, jobs: Jobs) -> None:
    """Missing or invalid values in Redis do not prevent the output of the rest."""
    key = f"{{{jobs.producer.settings.namespace}}}:job:odd"
    client = jobs.ledger._client
    client.hset(key, mapping={"state": "\x1b[2J", "finished_at": "9" * 30, "attempt:1": "[1]"})
    assert run("show", "odd").exit_code == 0
    assert json.loads(run("show", "odd", "--json").stdout)["state"] == "failed"


def test_stats_counts_states_pages_and_pauses(run: Run, jobs: Jobs) -> None:
    """JSON has every state. The text output has the same data as tables."""
    jobs.sent()
    jobs.enqueue(page_id=OTHER_PAGE)
    (claim,) = jobs.ledger.claim(1).claims
    pause(jobs.ledger, claim)
    for _ in range(2):
        jobs.enqueue()
    found = json.loads(run("stats", "--json").stdout)
    assert found["states"] == {
        **dict.fromkeys(["scheduled", "sending", "retrying", "cancelled"], 0),
        **{"queued": 2, "sent": 1, "failed": 1},
    }
    assert found["waiting_by_page"][PAGE] == 2
    (paused,) = found["paused"]
    assert (paused["page_id"], paused["reason"], paused["error_code"]) == (
        OTHER_PAGE,
        "auth",
        "190",
    )
    until = datetime.fromisoformat(paused["until"].replace("Z", "+00:00"))
    assert until > claimed_at(claim)
    assert found["redis"] == jobs.producer.settings.redis_url.removeprefix("redis://")
    text = run("stats").stdout
    assert found["redis"] in text
    assert ["queued", "2"] in [line.split() for line in text.splitlines()]
    (printed,) = [line for line in text.splitlines() if line.split()[:2] == [OTHER_PAGE, "auth"]]
    assert local(until) in printed
    assert "Set a new token in HARASOCIAL_TOKEN" in printed


def test_stats_prints_a_notice_if_no_worker_runs(run: Run, jobs: Jobs) -> None:
    """The notice has the time of the last sweep; each worker sweeps every second."""
    clock = f"{{{jobs.producer.settings.namespace}}}:clock"
    assert "no worker runs; start one: harasocial-dispatch worker" in run("stats").stdout
    assert json.loads(run("stats", "--json").stdout)["seconds_since_sweep"] is None

    jobs.ledger.sweep()
    assert "worker" not in run("stats").stdout
    assert 0 <= json.loads(run("stats", "--json").stdout)["seconds_since_sweep"] < 5

    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    jobs.ledger._client.set(clock, round(hour_ago.timestamp() * 1000))
    assert f"no worker runs, since {local(hour_ago)[:10]}" in run("stats").stdout


def test_an_elapsed_pause_waits_for_the_next_job() -> None:
    """A pause end in the past is not printed, because it looks like a fault."""
    now = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
    paused = pause_of("failing", until=now)
    (row,) = pause_rows([paused], now, "en")
    assert row[:4] == [PAGE, "failing", "", "its next job"]
    (row,) = pause_rows([paused], now - timedelta(seconds=1), "en")
    assert row[3] == local(now)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", ["auth", "failing", "throttled", "restricted", "refused"])
def test_each_reason_to_pause_is_explained(reason: str, language: Language) -> None:
    """The meaning follows the worker's reason."""
    assert pause_seconds(reason, 1) > 0
    now = datetime.now(timezone.utc)
    (row,) = pause_rows([pause_of(reason, until=now)], now, language)
    assert row[-1].endswith(".")
    assert row[-1] == " ".join(PAUSE_REASONS[reason][language])


def pause_of(reason: str, *, until: datetime) -> Pause:
    """Return a page's pause."""
    return Pause(
        page_id=PAGE,
        reason=reason,
        error_code=None,
        until_ms=round(until.timestamp() * 1000),
        token_fingerprint="",
    )


def claimed_at(claim: Claim) -> datetime:
    """Return when the job was claimed."""
    return datetime.fromtimestamp(claim.claimed_at_ms / 1000, timezone.utc)


def pause(ledger: Ledger, claim: Claim) -> None:
    """Fail the job because of its token, which pauses the page."""
    lane = LaneVerdict(effect="pause", reason="auth", pause_seconds=60)
    refused = OutcomeClass.AUTH
    ledger.record([make_result(claim, State.FAILED, "190", lane=lane, outcome_class=refused)])
