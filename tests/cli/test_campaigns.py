"""`campaigns`, `campaign show|hold|release|cancel`, and `--campaign` of the other commands."""

from __future__ import annotations

import json

import pytest
from harasocial_dispatch.schemas import State
from support.command_line import Jobs, Run
from support.harness import body

CODE = "10/2018278"


def enqueue(jobs: Jobs, campaign: str, count: int, page_id: str = "500") -> list[str]:
    rows = [
        {**body(page_id=page_id, recipient_id=f"{page_id}{i}"), "campaign": campaign}
        for i in range(count)
    ]
    return jobs.producer.enqueue_many(rows).accepted


def test_campaigns_lists_and_show_explains(jobs: Jobs, run: Run) -> None:
    """Given a campaign with failures on two pages and a new one, both commands show them."""
    for page_id, state in (("500", State.FAILED), ("600", State.SENT)):
        enqueue(jobs, "tet", 3, page_id)
        jobs.end(state, CODE if state is State.FAILED else None, "refused")
    enqueue(jobs, "new", 2)

    listed = map(json.loads, run("campaigns", "--json").output.splitlines())
    new, tet = sorted(listed, key=lambda campaign: campaign["name"])
    assert (new["name"], new["rows"], new["started_at"]) == ("new", 2, None)
    assert (tet["states"]["sent"], tet["states"]["failed"], tet["rows"]) == (3, 3, 6)
    table = run("campaigns").output
    assert "tet" in table and "finished" in table and "100.0%" in table

    shown = json.loads(run("campaign", "show", "tet", "--json").output)
    assert shown["name"] == "tet"
    assert shown["errors"] == {CODE: 3}
    assert shown["pages"]["500"]["errors"] == {CODE: 3}
    assert shown["pages"]["600"]["states"]["sent"] == 3
    assert shown["held"] is False and shown["reason"] is None
    assert shown["eta_seconds"] == 0
    assert shown["finished_at"] is not None
    text = run("campaign", "show", "tet").output
    assert CODE in text and "finished" in text and "600" in text


def test_a_watched_campaign_is_shown_until_it_has_finished(jobs: Jobs, run: Run) -> None:
    """Scripts get one line per second, and one line for a finished campaign."""
    enqueue(jobs, "tet", 3)
    jobs.end(State.SENT)
    result = run("campaign", "show", "tet", "--watch")
    assert result.exit_code == 0
    assert result.output.startswith("finished  100.0% of 3 rows  sent 3")


def test_hold_release_and_cancel(jobs: Jobs, run: Run) -> None:
    """Each command prints its result, and the campaign shows it."""
    job_ids = enqueue(jobs, "tet", 5)
    assert "waiting: 5 jobs" in run("campaign", "hold", "tet", "--reason", "wrong price").output
    assert "was already held: wrong price" in run("campaign", "hold", "tet").output
    held = json.loads(run("campaign", "show", "tet", "--json").output)
    assert (held["held"], held["reason"], held["eta_seconds"]) == (True, "wrong price", None)
    assert "wrong price (by " in run("campaign", "show", "tet").output
    assert jobs.ledger.claim(9).claims == []
    assert "released; to be sent: 5 jobs" in run("campaign", "release", "tet").output
    assert "not held" in run("campaign", "release", "tet").output

    refused = run("campaign", "cancel", "tet")
    assert (refused.exit_code, "--yes is required" in refused.output) == (2, True)
    assert "5 jobs will not be sent" in run("campaign", "cancel", "tet", "--yes").output
    assert {jobs.state(job_id) for job_id in job_ids} == {State.CANCELLED}
    assert "canceled" in run("campaigns").output
    for action in ("hold", "release"):
        result = run("campaign", action, "tet", "--json")
        error = json.loads(result.stderr)["error"]
        assert (result.exit_code, error["type"], error["name"]) == (1, "campaign_canceled", "tet")
    actions = [json.loads(line) for line in run("audit", "--json").output.splitlines()]
    assert [(entry["action"], entry["campaign"], entry["via"]) for entry in actions] == [
        ("cancel", "tet", "cli"),
        ("release", "tet", "cli"),
        ("hold", "tet", "cli"),
    ]


@pytest.mark.parametrize("action", ["show", "hold", "release", "cancel"])
def test_an_unknown_campaign_is_named(jobs: Jobs, run: Run, action: str) -> None:
    """The exit status is 1, as for an unknown job."""
    options = ["--yes"] if action == "cancel" else []
    result = run("campaign", action, "nobody", *options)
    assert result.exit_code == 1
    assert "no campaign has the name 'nobody'" in result.output


def test_every_command_on_jobs_filters_by_campaign(jobs: Jobs, run: Run) -> None:
    """Each command selects only the jobs of the given campaign."""
    failed = {name: enqueue(jobs, name, 2) for name in ("a", "b")}
    jobs.failed(CODE)
    jobs.end(State.FAILED, CODE)
    waiting = {name: enqueue(jobs, name, 2, "700") for name in ("a", "b")}
    jobs.producer.enqueue(body())

    def ids(*arguments: str) -> set[str]:
        lines = run(*arguments).stdout.splitlines()
        return {json.loads(line)["job_id"] for line in lines}

    assert ids("results", "--campaign", "a", "--json") == {*failed["a"], *waiting["a"]}
    assert ids("results", "--campaign", "a", "--state", "queued", "--json") == {*waiting["a"]}
    both = ("--campaign", "a", "--campaign", "b", "--page-id", "500", "--error-code", CODE)
    assert ids("results", *both, "--json") == {*failed["a"], *failed["b"]}
    assert json.loads(run("errors", "--campaign", "a", "--json").output) == {CODE: 2}
    assert ids("export", "--campaign", "b", "--format", "jsonl") == {*failed["b"]}
    assert ",a," in run("export", "--campaign", "a").output
    plan = json.loads(run("replay", "--campaign", "b", "--dry-run", "--json").output)
    assert plan["would_replay"] == 2
    canceled = json.loads(run("cancel", "--campaign", "b", "--yes", "--json").output)
    assert (canceled["cancelled_count"], canceled["by_campaign"]) == (2, {"b": 2})
    assert {jobs.state(job_id) for job_id in waiting["b"]} == {State.CANCELLED}
    assert {jobs.state(job_id) for job_id in waiting["a"]} == {State.QUEUED}
    replayed = json.loads(run("replay", "--campaign", "b", "--yes", "--json").output)["replayed"]
    assert {*replayed} == {*failed["b"]}
    shown = json.loads(run("show", failed["a"][0], "--json").output)
    assert shown["campaign"] == "a"
