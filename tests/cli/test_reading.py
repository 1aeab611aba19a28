"""`results`, `errors`, `show` and `stats`."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from harasocial_dispatch.cli.output.pause_view import pause_rows
from harasocial_dispatch.cli.output.times import local
from harasocial_dispatch.ledger import Ledger, Pause
from harasocial_dispatch.schemas import LaneVerdict, OutcomeClass, State
from harasocial_dispatch.schemas.language import LANGUAGES
from harasocial_dispatch.schemas.pause_reasons import PAUSE_REASONS
from harasocial_dispatch.worker.outcome.policy import pause_seconds
from support.results import make_result

PAGE, OTHER_PAGE, RECIPIENT = "500725830264749", "600", "2560816460648749"
HOSTILE = "\x1b[31mred\x9b2J [bold]x[/bold]"


def listed(result):
    """Return the ids of the jobs that `results --json` printed."""
    assert result.exit_code == 0
    return {json.loads(line)["job_id"] for line in result.stdout.splitlines()}


def test_results_filters_by_all_that_was_asked_for(run, jobs):
    """State, error code, page and time, alone and together."""
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


def test_results_for_people_is_a_table(run, jobs):
    """One line a job, in local time; the recipient does not appear."""
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
    when = jobs.producer.get_job(job_id).finished_at.astimezone()
    assert line.startswith(f"{when:%Y-%m-%d %H:%M:%S}  failed  10/2018278  {PAGE}")
    assert line.endswith(f"{job_id}  outside of the window")
    assert RECIPIENT not in line


def test_results_says_when_it_left_some_out_or_found_none(run, jobs):
    """On standard error, so that a program's input stays clean."""
    assert "no jobs found" in run("results").stderr
    jobs.enqueue()
    jobs.enqueue()
    assert "there may be more" in run("results", "--limit", "2").stderr
    assert run("results", "--limit", "3").stderr == ""


def test_errors_counts_by_code(run, jobs):
    """The most frequent first, with the message of the latest; by page and time if wanted."""
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


def test_errors_says_when_there_are_none(run):
    """JSON stays JSON."""
    assert (run("errors").stdout, run("errors").stderr) == ("", "no failed jobs\n")
    assert run("errors", "--json").stdout == "{}\n"


def test_show_json_is_the_whole_record(run, jobs):
    """With the body as it was sent, and times in UTC."""
    job_id = jobs.failed(metadata="order 1001", idempotency_key="k-1")
    shown = json.loads(run("show", job_id, "--json").stdout)
    assert shown == jobs.producer.get_job(job_id).as_json()
    assert shown["job"]["recipient"]["id"] == RECIPIENT
    assert shown["finished_at"].endswith("Z")
    assert [attempt["error_code"] for attempt in shown["attempts"]] == ["10/2018278"]


def test_show_tells_people_what_happened_in_turn(run, jobs):
    """Each attempt with its reply; the recipient's id but for its end is hidden."""
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


def test_show_says_what_the_error_code_means_and_what_to_do(run, jobs):
    """In a line each; for a code that nobody knows, it points to the API's own message."""
    window = run("show", jobs.failed("10/2018278")).stdout
    assert "meaning:         The messaging window is closed" in window
    assert "to do:           Do not replay until the person has written again" in window

    unknown = run("show", jobs.failed("4711", "the API's own words")).stdout
    assert "error message:   the API's own words" in unknown
    assert "meaning:         This code is not in the table" in unknown
    assert "to do:           Read the message, and replay when" in unknown

    # What is tried again by itself leaves nothing to do.
    retrying = jobs.enqueue()
    jobs.end(State.RETRYING, "http_503")
    text = run("show", retrying).stdout
    assert "meaning:         The API was overloaded" in text
    assert "to do:" not in text


def test_an_unknown_id_is_status_1(run):
    """With a message, and nothing on standard output."""
    result = run("show", "nope", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no job has the id 'nope'" in result.stderr


@pytest.mark.parametrize("command", ["results", "errors", "show"])
def test_hostile_texts_do_not_act(run, jobs, command):
    """Neither on a terminal nor in JSON, whoever wrote them."""
    job_id = jobs.failed(
        error_code=HOSTILE, message=HOSTILE, metadata=HOSTILE.replace("\x9b", "\n")
    )
    arguments = [command, job_id] if command == "show" else [command]
    for options in ([], ["--json"]):
        result = run(*arguments, *options)
        assert result.exit_code == 0
        assert all(line.isprintable() for line in result.stdout.splitlines())
        assert "[bold]x[/bold]" in result.stdout


def test_a_job_of_other_hands_is_shown_as_far_as_it_goes(run, jobs):
    """What is missing or nonsense in Redis does not stop anybody from looking."""
    key = f"{{{jobs.producer.settings.namespace}}}:job:odd"
    client = jobs.ledger._client
    client.hset(key, mapping={"state": "\x1b[2J", "finished_at": "9" * 30, "attempt:1": "[1]"})
    assert run("show", "odd").exit_code == 0
    assert json.loads(run("show", "odd", "--json").stdout)["state"] == "failed"


def test_stats_counts_states_pages_and_pauses(run, jobs):
    """JSON has every state; people see the same as tables."""
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
    assert datetime.fromisoformat(paused["until"].replace("Z", "+00:00")) > claimed_at(claim)
    assert found["redis"] == jobs.producer.settings.redis_url.removeprefix("redis://")
    text = run("stats").stdout
    assert found["redis"] in text
    assert ["queued", "2"] in [line.split() for line in text.splitlines()]
    (told,) = [line for line in text.splitlines() if line.split()[:2] == [OTHER_PAGE, "auth"]]
    assert local(claimed_at(claim) + timedelta(seconds=60))[:13] in told
    assert "Set a new token in HARASOCIAL_TOKEN" in told


def test_stats_says_if_no_worker_runs(run, jobs):
    """Since when, if one ever did; each worker sweeps every second."""
    clock = f"{{{jobs.producer.settings.namespace}}}:clock"
    assert "no worker runs; start one: harasocial-dispatch worker" in run("stats").stdout
    assert json.loads(run("stats", "--json").stdout)["seconds_since_sweep"] is None

    jobs.ledger.sweep()
    assert "worker" not in run("stats").stdout
    assert 0 <= json.loads(run("stats", "--json").stdout)["seconds_since_sweep"] < 5

    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    jobs.ledger._client.set(clock, round(hour_ago.timestamp() * 1000))
    assert f"no worker runs, since {local(hour_ago)[:10]}" in run("stats").stdout


def test_a_pause_whose_time_has_come_waits_for_the_next_job():
    """A time that has passed would look like a fault."""
    now = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
    paused = pause_of("failing", until=now)
    (row,) = pause_rows([paused], now, "en")
    assert row[:4] == [PAGE, "failing", "", "its next job"]
    (row,) = pause_rows([paused], now - timedelta(seconds=1), "en")
    assert row[3] == local(now)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", ["auth", "failing", "throttled", "restricted", "refused"])
def test_each_reason_to_pause_is_explained(reason, language):
    """What the worker gives as a reason is followed by what it means."""
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


def claimed_at(claim):
    """Return when the job was claimed."""
    return datetime.fromtimestamp(claim.claimed_at_ms / 1000, timezone.utc)


def pause(ledger: Ledger, claim) -> None:
    """Fail the job because of its token, which pauses the page."""
    lane = LaneVerdict(effect="pause", reason="auth", pause_seconds=60)
    refused = OutcomeClass.AUTH
    ledger.record([make_result(claim, State.FAILED, "190", lane=lane, outcome_class=refused)])
