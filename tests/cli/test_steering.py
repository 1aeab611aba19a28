"""`pause`, `resume` and `rate`."""

from __future__ import annotations

import getpass
import json
import re
import socket
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harasocial_dispatch.schemas import State
from support.command_line import Jobs, Run

PAGE, OTHER_PAGE = "500725830264749", "600"
ME = f"{getpass.getuser()}@{socket.gethostname()}"


def audited(run: Any) -> list[tuple[Any, ...]]:
    """Return the audit's entries, the latest first."""
    entries = [json.loads(line) for line in run("audit", "--json").stdout.splitlines()]
    assert all((entry["by"], entry["via"]) == (ME, "cli") for entry in entries)
    return [
        (entry["action"], entry["page_id"], entry["reason"], entry["details"]) for entry in entries
    ]


def paused(run: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("stats", "--json").stdout)["paused"]
    return found


def test_a_page_is_paused_and_resumed(run: Run, jobs: Jobs) -> None:
    """Both print the effect on the page's jobs. Other pages are still sent."""
    waiting = [jobs.enqueue(), jobs.enqueue()]
    other = jobs.enqueue(page_id=OTHER_PAGE)

    result = run("pause", PAGE, "--reason", "wrong price")
    assert result.exit_code == 0
    assert result.stdout == (
        f"page {PAGE} is paused until it is resumed: harasocial-dispatch resume {PAGE}; "
        "2 jobs wait\n"
    )
    jobs.end(State.SENT)
    assert [jobs.state(job_id) for job_id in (*waiting, other)] == [
        State.QUEUED, State.QUEUED, State.SENT,
    ]  # fmt: skip
    (pause,) = paused(run)
    assert [pause[name] for name in ("page_id", "reason", "by", "note", "until", "waiting")] == [
        PAGE, "manual", ME, "wrong price", None, 2,
    ]  # fmt: skip
    assert f"Paused by {ME}" in run("stats").stdout
    assert "wrong price" in run("stats").stdout

    result = run("resume", PAGE)
    assert (result.exit_code, result.stdout) == (0, f"page {PAGE} is resumed\n")
    jobs.end(State.SENT)
    assert [jobs.state(job_id) for job_id in waiting] == [State.SENT, State.SENT]
    assert audited(run) == [
        ("resume", PAGE, None, {}),
        ("pause", PAGE, "wrong price", {}),
    ]


def test_an_unknown_page_can_be_paused(run: Run, jobs: Jobs) -> None:
    """The output shows that the page has no waiting jobs, since the id may be mistyped."""
    result = run("pause", "123")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "it has no waiting jobs" in result.stdout
    result = run("rate", "123", "5")
    assert result.exit_code == 0
    assert "page 123 has no waiting jobs" in result.stderr


def test_a_second_pause_replaces_the_first_with_a_notice(run: Run, jobs: Jobs) -> None:
    """The notice has the operator and reason of the replaced pause."""
    jobs.producer.pause_page(PAGE, by="hoa@shop", reason="sold out")
    result = run("pause", PAGE, "--for", "2h", "--json")
    assert result.exit_code == 0
    until = datetime.fromisoformat(json.loads(result.stdout)["until"].rstrip("Z"))
    stored = datetime.fromisoformat(paused(run)[0]["until"].rstrip("Z"))
    assert abs(until - stored) < timedelta(seconds=10)
    assert "this replaces the pause by" in run("pause", PAGE).stderr
    jobs.producer.pause_page(PAGE, by="hoa@shop", reason="sold out")
    stderr = run("pause", PAGE).stderr
    assert stderr.startswith("this replaces the pause by hoa@shop since ")
    assert stderr.endswith(": sold out\n")


def test_all_pages_are_paused_and_resumed(run: Run, jobs: Jobs) -> None:
    """Individually paused pages stay paused, and are listed."""
    job_id = jobs.enqueue()
    run("pause", PAGE, "--reason", "by name")
    result = run("pause", "--all")
    assert result.stdout.startswith("every page is paused until it is resumed: ")
    assert result.stdout.endswith("; 1 job waits\n")
    assert {pause["page_id"] for pause in paused(run)} == {PAGE, "*"}
    assert re.search(r"^all pages +manual ", run("stats").stdout, re.MULTILINE)
    assert "  all pages" in run("audit").stdout
    # Both pauses apply. After one is resumed, a notice names the other.
    result = run("resume", PAGE)
    assert "the pause of all pages still applies" in result.stderr
    run("pause", PAGE, "--reason", "by name")
    result = run("resume", "--all")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (
        0, "the pause of all pages has ended",
    )  # fmt: skip
    assert "these pages are still paused individually" in result.stderr
    assert PAGE in result.stdout
    jobs.end(State.SENT)
    assert jobs.state(job_id) is State.QUEUED
    assert [page for _, page, *_ in audited(run)] == ["*", PAGE, PAGE, "*", PAGE]


def waiting_of(run: Any, job_id: str) -> str:
    """Return the reason in `show` why a job waits."""
    lines = run("show", job_id).stdout.splitlines()
    found = [line for line in lines if line.startswith("waiting:")]
    return found[0].removeprefix("waiting:").strip() if found else ""


def test_show_prints_why_a_job_waits_and_the_jobs_ahead(run: Run, jobs: Jobs) -> None:
    """It has the pauses with operator and time, a campaign's hold, and the jobs ahead."""
    ahead = [jobs.enqueue() for _ in range(29)]
    job_id = jobs.enqueue()
    assert waiting_of(run, ahead[0]) == "0 jobs ahead"
    assert waiting_of(run, job_id) == "29 jobs ahead"
    jobs.enqueue(urgent=True)
    assert waiting_of(run, job_id) == "30 jobs ahead"

    jobs.producer.pause_page(PAGE, reason="wrong price", by="hoa@ops-1")
    text = waiting_of(run, job_id)
    assert text.startswith("page paused by an operator: wrong price (by hoa@ops-1 since 20")
    assert text.endswith(") until it is resumed, 30 jobs ahead")
    jobs.producer.pause_all(by="thao", for_seconds=3600)
    assert waiting_of(run, job_id).startswith("all pages paused by an operator (by thao since 20")
    jobs.producer.resume_all()
    jobs.producer.resume_page(PAGE)

    in_campaign = jobs.enqueue(campaign="tet")
    assert waiting_of(run, in_campaign) == "31 jobs ahead"
    jobs.producer.hold_campaign("tet", reason="wrong text", by="hoa@ops-1")
    text = waiting_of(run, in_campaign)
    assert text.startswith("campaign held: wrong text (by hoa@ops-1 since 20")
    assert text.endswith("), 31 jobs ahead")
    later = jobs.enqueue(send_at=datetime.now(timezone.utc) + timedelta(hours=1))
    assert waiting_of(run, later) == ""

    jobs.end(State.FAILED, "551")
    assert waiting_of(run, job_id) == ""


def test_a_page_that_is_not_paused_cannot_be_resumed(run: Run, jobs: Jobs) -> None:
    """A notice is printed, the exit status is 1, and nothing is changed or recorded."""
    jobs.enqueue()
    for arguments, what in (([PAGE], f"page {PAGE} is not"), (["--all"], "there is no pause")):
        result = run("resume", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert what in result.stderr
        assert "nothing was changed" in result.stderr
        printed = json.loads(run("resume", *arguments, "--json").stdout)
        assert (printed["resumed"], printed["still_paused"]) == (None, [])
    assert audited(run) == []


def test_the_rate_of_a_page_is_set_listed_and_reset(run: Run, jobs: Jobs) -> None:
    """A rate above 40 per second prints a warning with the reason."""
    result = run("rate", PAGE, "20", "--burst", "5")
    assert result.exit_code == 0
    assert result.stdout == f"page {PAGE}: 20 messages per second, burst 5\n"
    result = run("rate", OTHER_PAGE, "50")
    assert result.exit_code == 0
    assert f"warning: the rate of page {OTHER_PAGE} is 50" in result.stderr
    assert "Facebook disables the inbox of a page that sends more than 40" in result.stderr

    listed = json.loads(run("rate", "--json").stdout)
    assert set(listed["default"]) == {"rate", "burst"}
    assert [(e["page_id"], e["rate"], e["burst"], e["by"]) for e in listed["pages"]] == [
        (PAGE, 20.0, 5, ME),
        (OTHER_PAGE, 50.0, listed["default"]["burst"], ME),
    ]
    text = run("rate").stdout
    assert text.startswith("default: ")
    assert all(word in text for word in (PAGE, OTHER_PAGE, ME))
    assert run("rate", PAGE).stdout == f"page {PAGE}: 20 messages per second, burst 5\n"

    result = run("rate", PAGE, "--default")
    assert result.exit_code == 0
    assert result.stdout.endswith(", the default\n")
    result = run("rate", PAGE, "--default")
    assert (result.exit_code, "already has the default rate" in result.stderr) == (0, True)
    assert [details for action, _, _, details in audited(run)] == [
        {"rate": "default"},
        {"rate": 50.0, "burst": listed["default"]["burst"]},
        {"rate": 20.0, "burst": 5},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("pause", "either PAGE or --all"),
        ("pause 1 --all", "either PAGE or --all"),
        ("resume", "either PAGE or --all"),
        ("resume 1 --all", "either PAGE or --all"),
        ("pause 12x", "page_id: "),
        ("resume x", "page_id: "),
        ("rate x 5", "page_id: "),
        ("rate x", "page_id: "),
        ("rate x --default", "page_id: "),
        ("pause 1 --for 0s", "for_seconds: Must be more than 0"),
        ("pause 1 --for 367d", "366 days"),
        ("pause 1 --for 99999999999999999999d", "too long a duration"),
        ("pause 1 --for soon", "is not a duration: expected one such as 30m"),
        ("pause 1 --for -2h", "is not a duration"),
        ("pause 1 --for 2020-01-31", "is not a duration"),
        ("pause 1 --for 1h --for 2h", "--for is given 2 times"),
        (f"pause 1 --reason {'x' * 201}", "reason: "),
        ("rate 1 -5", "rate: Must be messages per second"),
        ("rate 1 1e9", "rate: Must be messages per second"),
        ("rate 1 nan", "rate: Must be a number"),
        ("rate 1 fast", "'fast' is not a valid float"),
        ("rate 1 5 --burst 0", "burst: Must be a whole number"),
        ("rate 1 5 --burst 1000000", "burst: Must be a whole number"),
        ("rate 1 5 --burst 2.5", "'2.5' is not a valid integer"),
        ("rate 1 --burst 5", "--burst requires N"),
        ("rate --default", "Name the PAGE"),
        ("rate 1 5 --default", "either N or --default"),
        ("rate 1 5 6", "unexpected extra argument"),
        ("rate 1 5 --fast", "unexpected extra argument"),
    ],
)
def test_wrong_input_is_named_and_changes_nothing(
    run: Run, jobs: Jobs, arguments: str, message: str
) -> None:
    """The exit status is 2."""
    client = jobs.ledger._client
    prefix = f"{{{jobs.producer.settings.namespace}}}:"
    result = run(*arguments.split(" "))
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    kept = {name.removeprefix(prefix) for name in client.scan_iter(prefix + "*")}
    assert not kept & {"pauses", "paused_all", "rates", "audit", "audit_entries"}
    printed = json.loads(run(*arguments.split(" "), "--json").stderr)["error"]
    assert printed["type"] in ("usage", "invalid_request")
