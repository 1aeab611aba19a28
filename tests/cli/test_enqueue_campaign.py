"""`enqueue --campaign` and `enqueue --dry-run`."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import QueueUnavailable, State
from support.command_line import Jobs, Run
from support.failures import failing_at
from support.harness import DEADLINE_SECONDS, eventually
from support.processes import run_program
from support.terminal import on_terminal

PAGE, OTHER_PAGE = "500725830264749", "600"
HEADER = "recipient_id,payload_id,page_id,metadata,expires_at,idempotency_key\n"


def table(count: int, page_id: str = PAGE, *, first: int = 1000, **cells: str) -> str:
    """Return rows of CSV, each for a different recipient."""
    names = HEADER.strip().split(",")
    rows = [
        {"recipient_id": str(first + i), "payload_id": "p", "page_id": page_id, **cells}
        for i in range(count)
    ]
    return "".join(",".join(row.get(name, "") for name in names) + "\n" for row in rows)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sale.csv"


def test_a_dry_run_reads_everything_and_stores_nothing(
    run: Run, jobs: Jobs, file: Path, environment: pytest.MonkeyPatch
) -> None:
    """The preview has valid and invalid rows, duplicates, and a forecast for each page."""
    environment.setenv("HARASOCIAL_PAGE_RATE", "20")
    tokens = file.with_name("tokens.json")
    tokens.write_text(json.dumps({PAGE: "a-token-of-this-page"}))
    environment.setenv("HARASOCIAL_TOKENS_FILE", str(tokens))
    file.write_text(
        HEADER
        + table(1400)
        + table(3, OTHER_PAGE)
        + table(200, OTHER_PAGE, expires_at="1s", first=9000)
        + table(2)
        + table(1, metadata="another")
        + "x,p,1,,,\n"
    )
    rejected = file.with_name("rejected.csv")

    result = run("enqueue", file, "--campaign", "sale", "--dry-run", "--rejects", rejected)

    assert result.exit_code == 3, result.stderr
    first, *pages, last = result.stdout.splitlines()
    assert first == (
        "1,605 rows valid (2 repeat an earlier row and are not sent again), 2 rejected"
    )
    assert pages[0].startswith(f"page {OTHER_PAGE}: 203 rows at 20/s take ")
    assert "will expire: raise the rate or the deadline" in pages[0]
    assert pages[1].startswith("  it has no token: its messages are not sent until")
    assert pages[2].startswith(f"page {PAGE}: 1,400 rows at 20/s take 70 s (until ")
    assert pages[2].endswith("; all end before their deadline")
    assert len(pages) == 3
    assert last == "nothing was enqueued (--dry-run)"
    assert result.stderr.splitlines() == [
        "line 1607: idempotency_key: An earlier row has the same key and a different body.",
        "line 1608: recipient.id: Must be a string of digits, nothing else.",
    ]
    assert len(list(csv.reader(rejected.open(encoding="utf-8-sig")))) == 3
    assert not any(jobs.producer.count_states().values())
    assert jobs.ledger.reader.campaign("sale") is None


def test_a_dry_run_prints_json(run: Run, jobs: Jobs, environment: pytest.MonkeyPatch) -> None:
    """The JSON has every rejected row and every page."""
    environment.setenv("HARASOCIAL_PAGE_RATE", "20")
    jobs.enqueue()
    jobs.producer.set_rate(OTHER_PAGE, 5)
    jobs.producer.pause_page(OTHER_PAGE, reason="the shop is closed")
    text = HEADER + table(40) + table(1) + "x,p,1,,,\n" + table(10, OTHER_PAGE)
    began = datetime.now(timezone.utc)
    result = run("enqueue", "-", "--campaign", "sale", "--dry-run", "--json", stdin=text)
    ended = datetime.now(timezone.utc)
    assert result.exit_code == 3
    found = json.loads(result.stdout)
    other, page = found.pop("pages")
    ends_at = datetime.fromisoformat(page.pop("ends_at").replace("Z", "+00:00"))
    assert began + timedelta(seconds=1) < ends_at < ended + timedelta(seconds=3)
    assert page == {
        "page_id": PAGE,
        "rows": 40,
        "rate": 20.0,
        "waiting": 1,
        "sending_seconds": 2.0,
        "will_expire": 0,
        "has_token": None,
        "paused": [],
    }
    # One page has its own rate. The paused page comes first.
    assert (other["page_id"], other["rate"], other["sending_seconds"]) == (OTHER_PAGE, 5, 2)
    assert other["paused"] == ["manual"]
    assert found == {
        "tokens": [],
        "paused": [],
        "rejected": [
            {"line": 43, "errors": {"recipient.id": ["Must be a string of digits, nothing else."]}}
        ],
        "valid": 51,
        "duplicates": 1,
    }


def test_a_dry_run_needs_no_campaign(run: Run, jobs: Jobs, file: Path) -> None:
    """Without keys, the preview does not report duplicates."""
    file.write_text(HEADER + table(2) + table(2))
    result = run("enqueue", file, "--dry-run")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "4 rows valid, 0 rejected")
    assert not any(jobs.producer.count_states().values())


def test_a_campaign_is_enqueued_once(run: Run, jobs: Jobs, file: Path) -> None:
    """Each row gets a key, so a duplicate row or another run does not send it again."""
    file.write_text(HEADER + table(1300) + table(5) + "x,p,1,,,\n")
    result = run("enqueue", file, "--campaign", "sale", "--yes")
    assert (result.exit_code, result.stdout) == (3, "1,300 new, 5 already there, 1 rejected\n")
    assert "1,305 rows valid (5 repeat" in result.stderr
    again = run("enqueue", file, "--campaign", "sale", "--yes", "--json")
    report = json.loads(again.stdout)
    assert (report["new"], report["already_enqueued"], len(report["rejected"])) == (0, 1305, 1)
    campaign = jobs.campaign("sale")
    assert (campaign.rows, campaign.states[State.QUEUED]) == (1300, 1300)
    job = jobs.producer.find_jobs(limit=1)[0]
    assert job.campaign == "sale"

    # and another campaign has other keys
    assert "1,300 new" in run("enqueue", file, "--campaign", "sale2", "--yes").stdout


def test_a_campaign_from_a_pipe_is_read_twice(program: list[str], jobs: Jobs) -> None:
    """The input is copied to a temporary file."""
    command = (*program, "enqueue", "-", "--campaign", "sale", "--yes")
    result = run_program(*command, input=HEADER + table(700))
    assert (result.returncode, result.stdout) == (0, "700 new, 0 already there, 0 rejected\n")
    assert jobs.campaign("sale").enqueued == 700


def test_duplicates_may_be_allowed_and_are_still_enqueued_once_each(
    run: Run, jobs: Jobs, file: Path
) -> None:
    """Repeated rows are separate jobs, and a second run enqueues none of them again."""
    file.write_text(HEADER + table(3) + table(3, metadata="second") + table(1))
    options = ["--campaign", "sale", "--yes", "--allow-duplicates"]
    assert run("enqueue", file, *options).stdout == "7 new, 0 already there, 0 rejected\n"
    assert run("enqueue", file, *options).stdout == "0 new, 7 already there, 0 rejected\n"
    assert jobs.campaign("sale").rows == 7


def test_rows_with_keys_of_other_campaigns_do_not_block_completion(
    run: Run, jobs: Jobs, file: Path
) -> None:
    """Rows whose keys belong to jobs of other campaigns are not counted."""
    file.write_text(HEADER + table(1, idempotency_key="k") + table(1))
    jobs.producer.enqueue(
        {"recipient": {"id": "1000"}, "message": {"payload_id": "p"}, "page_id": PAGE},
        idempotency_key="k",
    )
    result = run("enqueue", file, "--campaign", "sale", "--yes")
    assert result.stdout == "1 new, 1 already there, 0 rejected\n"
    assert jobs.campaign("sale").rows == 1


def test_a_key_with_another_body_is_a_rejected_row(run: Run, jobs: Jobs, file: Path) -> None:
    """The rule also applies to derived keys: a changed row of the same campaign is rejected."""
    file.write_text(HEADER + table(2))
    run("enqueue", file, "--campaign", "sale", "--yes")
    file.write_text(HEADER + table(1) + table(1, first=1001, metadata="another"))
    result = run("enqueue", file, "--campaign", "sale", "--yes")
    assert (result.exit_code, result.stdout) == (3, "0 new, 1 already there, 1 rejected\n")
    assert "line 3: idempotency_key: The key belongs to job" in result.stderr
    assert "which has another metadata." in result.stderr
    assert jobs.campaign("sale").rows == 2


def test_without_a_valid_row_there_is_no_prompt(run: Run, jobs: Jobs, file: Path) -> None:
    """The rejected rows are still written."""
    rejected = file.with_name("rejected.csv")
    file.write_text(HEADER + "x,p,1,,,\n")
    result = run("enqueue", file, "--campaign", "sale", "--yes", "--rejects", rejected)
    assert (result.exit_code, result.stdout) == (3, "0 new, 0 already there, 1 rejected\n")
    assert len(rejected.read_text().splitlines()) == 2
    assert jobs.ledger.reader.campaign("sale") is None


def test_the_options_of_a_campaign_are_stored_before_its_rows(
    run: Run, jobs: Jobs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the first rows would be sent without the hold."""
    calls = []

    def announce(self: Ledger, name: str, **options: Any) -> None:
        calls.append((name, options, sum(self.reader.count_states().values())))

    monkeypatch.setattr(Ledger, "announce_campaign", announce)
    file.write_text(HEADER + table(20))
    options = ["--canary", "5", "--canary-max-failures", "5%", "--hold-at", "20"]
    assert run("enqueue", file, "--campaign", "sale", "--yes", *options).exit_code == 0
    (name, given, stored), _ = calls
    assert (name, stored) == ("sale", 0)
    assert given == {"rows": 20, "canary": 5, "canary_max_failures": 0.05, "hold_at": 0.2}


def test_a_canary_is_sent_before_the_other_rows(run: Run, jobs: Jobs, file: Path) -> None:
    """The other rows wait for a release, also after the file is enqueued again."""
    file.write_text(HEADER + table(20))
    command = ["enqueue", file, "--campaign", "sale", "--yes", "--canary", "3"]
    assert run(*command).exit_code == 0
    assert len(jobs.ledger.claim(100).claims) == 3
    assert run(*command).stdout == "0 new, 20 already there, 0 rejected\n"
    assert not jobs.ledger.claim(100).claims
    assert jobs.campaign("sale").held
    jobs.ledger.release_campaign("sale", by="somebody")
    assert len(jobs.ledger.claim(100).claims) == 17


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--campaign", "a b", "--yes"], "Must be 1 to 64 of the characters"),
        (["--campaign", "sale"], "Without a terminal, --yes or --dry-run is required."),
        (["--canary", "5"], "--canary requires --campaign NAME."),
        (["--allow-duplicates"], "--allow-duplicates requires --campaign"),
        (["--hold-at", "20%"], "--hold-at requires --campaign"),
        (["--campaign", "sale", "--yes", "--hold-at", "0%"], "'0%' is not a percentage"),
        (["--campaign", "sale", "--yes", "--hold-at", "lots"], "'lots' is not a percentage"),
        (
            ["--campaign", "sale", "--yes", "--canary-max-failures", "5%"],
            "--canary-max-failures requires --canary N.",
        ),
    ],
)
def test_invalid_combinations_of_options_are_wrong_usage(
    run: Run, jobs: Jobs, file: Path, options: list[str], message: str
) -> None:
    """Nothing is stored."""
    file.write_text(HEADER + table(2))
    result = run("enqueue", file, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not any(jobs.producer.count_states().values())


def test_a_canceled_campaign_rejects_rows(run: Run, jobs: Jobs, file: Path) -> None:
    """Its rows would never be sent."""
    file.write_text(HEADER + table(2))
    run("enqueue", file, "--campaign", "sale", "--yes")
    jobs.ledger.cancel_campaign("sale", by="somebody")
    result = run("enqueue", file, "--campaign", "sale", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "campaign 'sale' is canceled" in result.stderr


def test_pauses_are_shown_before_a_campaign_is_enqueued(run: Run, jobs: Jobs, file: Path) -> None:
    """A pause does not change the forecast, so it is printed separately."""
    jobs.producer.pause_page(PAGE, reason="the shop is closed")
    jobs.producer.pause_all(for_seconds=3600)
    file.write_text(HEADER + table(2))
    lines = run("enqueue", file, "--dry-run").stdout.splitlines()
    assert lines[2] == "  it is paused now (manual) until it is resumed"
    assert lines[3].startswith("all pages are paused now (manual) until 2")


def test_pages_of_a_token_that_has_a_rate_share_it(
    run: Run, jobs: Jobs, file: Path, environment: pytest.MonkeyPatch
) -> None:
    """Each page alone may meet its deadlines, but not all pages together."""
    environment.setenv("HARASOCIAL_TOKEN", "a-token-of-all-pages")
    environment.setenv("HARASOCIAL_TOKEN_RATE", "1")
    file.write_text(HEADER + table(300, expires_at="5m") + table(300, OTHER_PAGE, expires_at="5m"))
    lines = run("enqueue", file, "--dry-run").stdout.splitlines()
    assert [line.endswith("all end before their deadline") for line in lines[1:3]] == [True, True]
    assert lines[3].startswith("all pages of a token: 600 rows at 1/s take ")
    assert lines[3].endswith(" will expire: raise the rate or the deadline")
    report = json.loads(run("enqueue", file, "--dry-run", "--json").stdout)
    (token,) = report["tokens"]
    assert token["rows"] == 600
    assert 300 <= token["will_expire"] < 330
    assert token["page_id"].startswith("token:")


@pytest.mark.parametrize(("answer", "status", "count"), [("y\n", 0, 700), ("n\n", 1, 0)])
def test_on_a_terminal_a_campaign_is_shown_and_confirmed(
    program: list[str], jobs: Jobs, file: Path, answer: str, status: int, count: int
) -> None:
    """The preview is printed before the prompt. The answer "no" stores nothing."""
    file.write_text(HEADER + table(700))
    text, ended = on_terminal([*program, "enqueue", str(file), "--campaign", "sale"], answer)
    assert "700 rows valid, 0 rejected" in text
    assert f"page {PAGE}: 700 rows" in text
    assert "Enqueue 700 rows as campaign sale? [y/N]: " in text
    assert ended == status
    assert jobs.producer.count_states()[State.QUEUED] == count


#: Runs the command, and prints its peak memory (KiB) at the end.
MEASURED = """
import atexit, re, sys
def peak():
    with open("/proc/self/status") as status:
        return re.search(r"VmHWM:\\s+(\\d+)", status.read())[1]
atexit.register(lambda: print(peak(), file=sys.stderr))
from harasocial_dispatch.cli import main; main()
"""


def test_memory_does_not_grow_with_the_file(environment: pytest.MonkeyPatch, file: Path) -> None:
    """Memory is bounded while the file is read and enqueued, with keys and rejected rows."""

    def peak_mib(rows: int, *options: str) -> float:
        # All keys are different, and a tenth of the rows is rejected.
        file.write_text(HEADER + table(rows) + "x,p,1,,,\n" * (rows // 10))
        command = ["enqueue", str(file), "--campaign", f"sale{rows}", *options]
        result = run_program(sys.executable, "-c", MEASURED, *command)
        assert result.returncode == 3, result.stderr
        return int(result.stderr.split()[-1]) / 1024

    rejected = str(file.with_name("rejected.csv"))
    for options in (["--dry-run"], ["--yes", "--rejects", rejected]):
        assert peak_mib(40_000, *options) - peak_mib(1000, *options) < 12


def test_after_ctrl_c_the_same_command_continues(
    program: list[str], jobs: Jobs, file: Path
) -> None:
    """Every row is enqueued exactly once, for any time of the interruption."""

    def has_more_than(count: int) -> bool:
        return jobs.producer.count_states()[State.QUEUED] > count

    file.write_text(HEADER + table(30_000))
    command = [*program, "enqueue", str(file), "--campaign", "sale", "--yes"]
    for _ in range(2):
        already = jobs.producer.count_states()[State.QUEUED]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            eventually(partial(has_more_than, already))
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 130
        assert b"Run the same command again to continue; no row is enqueued twice" in errors
    stored = jobs.producer.count_states()[State.QUEUED]
    assert 0 < stored < 30_000
    campaign = jobs.campaign("sale")
    assert (campaign.rows, campaign.finished_at) == (30_000, None)

    result = run_program(*command)
    assert result.stdout == f"{30_000 - stored:,} new, {stored:,} already there, 0 rejected\n"
    assert jobs.producer.count_states()[State.QUEUED] == 30_000
    assert jobs.campaign("sale").rows == 30_000


def test_after_a_lost_redis_the_same_command_continues(
    run: Run, jobs: Jobs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit status is 4."""
    error = QueueUnavailable("Redis at test is away")
    monkeypatch.setattr(Ledger, "enqueue", failing_at(2, error, Ledger.enqueue))
    file.write_text(HEADER + table(1200))
    command = ["enqueue", file, "--campaign", "sale", "--yes"]
    result = run(*command)
    assert (result.exit_code, result.stdout) == (4, "500 new, 0 already there, 0 rejected\n")
    assert "none after that. Run the same command again" in result.stderr
    assert run(*command).stdout == "700 new, 500 already there, 0 rejected\n"
