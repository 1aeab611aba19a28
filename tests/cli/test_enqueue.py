"""`enqueue`: the rows of a file."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import EnqueueUnknown, QueueUnavailable, State
from support.command_line import Jobs, Run
from support.failures import failing_at, raising
from support.harness import present

PAGE, RECIPIENT = "500725830264749", "2560816460648749"


def warning(line: int) -> str:
    """Return the warning about the first row without a key."""
    return (
        f"warning: line {line} has no idempotency_key. If this file is enqueued again, such rows "
        "are sent again. To prevent that, give every row an idempotency_key (a column in CSV, a "
        "field in JSON lines), or enqueue them with --campaign NAME."
    )


def row(**fields: Any) -> str:
    """Return a JSON line."""
    body = {"recipient": {"id": RECIPIENT}, "message": {"payload_id": "p"}, "page_id": PAGE}
    return json.dumps(body | fields) + "\n"


def test_json_lines_from_a_file(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """All rows are enqueued with their options, in several batches."""
    file = tmp_path / "messages.jsonl"
    file.write_text(row(urgent=True, metadata="first") + row() * 600)
    result = run("enqueue", file)
    assert result.exit_code == 0
    assert result.stdout == "601 new, 0 already there, 0 rejected\n"
    assert result.stderr.splitlines() == [warning(1)]
    assert jobs.producer.count_states()[State.QUEUED] == 601
    assert jobs.ledger.claim(1).claims[0].body["metadata"] == "first"


def test_csv_from_standard_input(run: Run, jobs: Jobs) -> None:
    """CSV from a spreadsheet has a byte order mark and a quoted line break."""
    text = (
        "\ufeffrecipient_id,payload_id,page_id,metadata,idempotency_key\r\n"
        f'{RECIPIENT},p,{PAGE},"xin\r\nchào",k-1\r\n'
        f'{RECIPIENT},p,{PAGE},"xin\r\nchào",k-1\r\n'
    )
    result = run("enqueue", "-", stdin=text)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "1 new, 1 already there, 0 rejected\n"
    (job,) = jobs.producer.find_jobs()
    assert job.job["metadata"] == "xin\r\nchào"
    assert job.idempotency_key == "k-1"


def test_rejected_rows_are_listed_by_line_and_field(run: Run, jobs: Jobs) -> None:
    """The other rows are enqueued, and the exit status is 3."""
    lines = [row(), "nope\n", row(page_id=5), row(urgnt=True), row()]
    result = run("enqueue", "-", stdin="".join(lines))
    assert result.exit_code == 3
    assert result.stdout == "2 new, 0 already there, 3 rejected\n"
    assert result.stderr.splitlines() == [
        warning(1),
        "line 2: job: Is not JSON: Expecting value (character 1).",
        "line 3: page_id: Is a number. Quote it: ids are strings of digits.",
        "line 4: urgnt: Is not a field of the API.",
    ]
    assert jobs.producer.count_states()[State.QUEUED] == 2


def test_at_most_twenty_rejected_rows_are_printed(run: Run) -> None:
    """The number of the other rejected rows is printed too."""
    result = run("enqueue", "-", "--format", "jsonl", stdin="nope\n" * 1234)
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[19].startswith("line 20: ")
    assert lines[20].startswith("and 1,214 more rejected rows")
    assert result.stdout == "0 new, 0 already there, 1,234 rejected\n"


@pytest.mark.parametrize(
    ("lines", "accepted", "rejected", "status"),
    [
        ([], 0, [], 0),
        ([row()], 1, [], 0),
        (["nope\n"] * 700, 0, range(1, 701), 3),
        ([row(), "nope\n", row(page_id=5), row()], 2, [2, 3], 3),
    ],
)
def test_json_has_every_rejected_row(
    run: Run, lines: list[str], accepted: int, rejected: Sequence[int], status: int
) -> None:
    """One object has the counts, and the line and errors of each rejected row."""
    result = run("enqueue", "-", "--format", "jsonl", "--json", stdin="".join(lines))
    report = json.loads(result.stdout)
    assert result.exit_code == status
    assert report.keys() == {"accepted", "new", "already_enqueued", "rejected"}
    assert (report["accepted"], report["new"]) == (accepted, accepted)
    assert report["already_enqueued"] == 0
    assert [found["line"] for found in report["rejected"]] == list(rejected)
    assert all(found["errors"] for found in report["rejected"])


def test_a_file_with_keys_may_be_enqueued_again(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """Existing rows are counted as already there, added rows as new, without a warning."""
    file = tmp_path / "messages.jsonl"
    file.write_text("".join(row(idempotency_key=f"k-{i}") for i in range(600)))
    assert run("enqueue", file).stdout == "600 new, 0 already there, 0 rejected\n"
    with file.open("a") as more:
        more.write(row(idempotency_key="k-600"))
    result = run("enqueue", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "1 new, 600 already there, 0 rejected\n"
    report = json.loads(run("enqueue", file, "--json").stdout)
    assert report == {"rejected": [], "accepted": 601, "new": 0, "already_enqueued": 601}
    assert jobs.producer.count_states()[State.QUEUED] == 601


def test_a_key_with_another_body_is_a_rejected_row(run: Run, jobs: Jobs) -> None:
    """It is listed by line, in order with the others. The rest is enqueued."""
    held = jobs.enqueue(idempotency_key="held")
    lines = [
        row(idempotency_key="a"),
        row(idempotency_key="held", metadata="m"),
        "nope\n",
        row(idempotency_key="b"),
    ]
    result = run("enqueue", "-", stdin="".join(lines))
    assert result.exit_code == 3
    assert result.stdout == "2 new, 0 already there, 2 rejected\n"
    assert result.stderr.splitlines() == [
        f"line 2: idempotency_key: The key belongs to job {held}, which has another "
        "message.payload_id and metadata.",
        "line 3: job: Is not JSON: Expecting value (character 1).",
    ]
    (second, _) = json.loads(run("enqueue", "-", "--json", stdin="".join(lines)).stdout)["rejected"]
    assert second["line"] == 2
    assert second["errors"].keys() == {"idempotency_key"}


def notices(result: Result) -> list[str]:
    """Return the lines of standard error, which are JSON with --json."""
    lines = result.stderr.splitlines()
    return [json.loads(line).get("notice", "") if line[0] == "{" else line for line in lines]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_warning_about_rows_without_a_key_comes_before_they_are_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """The warning is needed because enqueuing the file again sends these rows again."""
    text = row(idempotency_key="k") * 3 + row() * 1500
    result = run("enqueue", "-", *options, stdin=text)
    assert (result.exit_code, notices(result)) == (0, [warning(4)])

    monkeypatch.setattr(Ledger, "enqueue", raising(QueueUnavailable("Redis at test is away")))
    result = run("enqueue", "-", *options, stdin=text)
    assert (result.exit_code, notices(result)[0]) == (4, warning(4))


def test_times_in_files_have_the_format_of_the_options(
    run: Run, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CSV and JSON lines accept durations, local times, and ISO 8601; errors name the field."""
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    time.tzset()
    try:
        now = datetime.now(timezone.utc)
        day = (now + timedelta(days=3)).date()
        local = datetime(day.year, day.month, day.day, 2, tzinfo=timezone.utc)
        times = {
            "2h": now + timedelta(hours=2),
            "1d12h": now + timedelta(hours=36),
            f"{day} 09:00": local,
            f"{day}T09:00": local,
            f"{day}T09:00:00+09:00": local - timedelta(hours=2),
            f"{day}T09:00:00Z": local + timedelta(hours=7),
        }
        header = "recipient_id,payload_id,page_id,metadata,send_at,expires_at\n"
        table = header + "".join(f"{RECIPIENT},p,{PAGE},csv,{text},5d\n" for text in times)
        lines = "".join(row(metadata="jsonl", send_at=text, expires_at="5d") for text in times)
        for data in (table, lines):
            result = run("enqueue", "-", stdin=data)
            assert (result.exit_code, result.stdout[:6]) == (0, "6 new,"), result.stderr
        for kind in ("csv", "jsonl"):
            found = [job for job in jobs.producer.find_jobs() if job.job["metadata"] == kind]
            send_at = sorted(present(job.send_at) for job in found)
            for one, wanted in zip(send_at, sorted(times.values()), strict=True):
                assert abs(one - wanted) < timedelta(seconds=30)
            for job in found:
                late = present(job.expires_at) - now - timedelta(days=5)
                assert abs(late.total_seconds()) < 30

        wrong = row(send_at="soon") + row(expires_at="tomorrow", send_at="2h") + row(send_at=5)
        result = run("enqueue", "-", stdin=wrong)
    finally:
        monkeypatch.undo()
        time.tzset()
    expected = (
        "Must be a time, such as 2h or 1d (from now), 2026-01-31 09:00 (local time) or "
        "2026-01-31T09:00:00+07:00."
    )
    assert result.exit_code == 3
    assert result.stderr.splitlines()[1:] == [
        f"line 1: send_at: {expected}",
        f"line 2: expires_at: {expected}",
        "line 3: send_at: Must be a datetime with a time zone.",
    ]


def test_an_unknown_column_is_wrong_usage(run: Run, jobs: Jobs) -> None:
    """The error names the column, and nothing is enqueued."""
    result = run("enqueue", "-", stdin=f"recipient_id,payload_id,page_id,phone\n1,p,{PAGE},2\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown column 'phone'" in result.stderr
    assert jobs.producer.count_states()[State.QUEUED] == 0


def test_a_missing_file_is_wrong_usage(run: Run) -> None:
    """A missing file is a usage error."""
    result = run("enqueue", "nowhere.csv")
    assert result.exit_code == 2
    assert "nowhere.csv" in result.stderr


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            QueueUnavailable("Redis at test is away"),
            "stopped: 999 were enqueued, from the lines up to 1000; none after that",
        ),
        (
            EnqueueUnknown("Redis at test is silent"),
            "stopped: 999 were enqueued, from the lines up to 1000; those of lines 1001 to 1200 "
            "may or may not have been; none after that",
        ),
        (
            KeyboardInterrupt(),
            "stopped: 999 were enqueued, from the lines up to 1000; those of lines 1001 to 1200 "
            "may or may not have been; none after that",
        ),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_an_interrupted_run_prints_the_last_line(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    message: str,
    as_json: bool,
) -> None:
    """The message has the last line, so that only the rest can be enqueued."""
    monkeypatch.setattr(Ledger, "enqueue", failing_at(3, error, Ledger.enqueue))
    text = "nope\n" + row() * 1199
    result = run("enqueue", "-", "--format", "jsonl", *["--json"] * as_json, stdin=text)
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 4)
    assert message in notices(result)
    if as_json:
        assert json.loads(result.stdout)["accepted"] == 999
    else:
        assert result.stdout == "999 new, 0 already there, 1 rejected\n"


def test_a_run_that_stops_at_the_start_prints_that_nothing_was_enqueued(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has no line number if no line was processed."""
    monkeypatch.setattr(Ledger, "enqueue", raising(QueueUnavailable("Redis at test is away")))
    result = run("enqueue", "-", "--format", "jsonl", stdin=row())
    assert result.exit_code == 4
    assert "stopped before the first row; none was enqueued" in result.stderr.splitlines()
