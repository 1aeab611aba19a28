"""`enqueue`: the rows of a file."""

from __future__ import annotations

import json

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import EnqueueUnknown, QueueUnavailable, State

PAGE, RECIPIENT = "500725830264749", "2560816460648749"


def row(**fields):
    """Return a JSON line."""
    body = {"recipient": {"id": RECIPIENT}, "message": {"payload_id": "p"}, "page_id": PAGE}
    return json.dumps(body | fields) + "\n"


def test_json_lines_from_a_file(run, jobs, tmp_path):
    """All rows are enqueued, in more than one batch, with their options."""
    file = tmp_path / "messages.jsonl"
    file.write_text(row(urgent=True, metadata="first") + row() * 600)
    result = run("enqueue", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "enqueued 601, rejected 0\n", "")
    assert jobs.producer.count_states()[State.QUEUED] == 601
    assert jobs.ledger.claim(1).claims[0].body["metadata"] == "first"


def test_csv_from_standard_input(run, jobs):
    """With a byte order mark and a quoted line break, as spreadsheets write it."""
    text = (
        "\ufeffrecipient_id,payload_id,page_id,metadata,idempotency_key\r\n"
        f'{RECIPIENT},p,{PAGE},"xin\r\nchào",k-1\r\n'
        f"{RECIPIENT},p,{PAGE},,k-1\r\n"
    )
    result = run("enqueue", "-", stdin=text)
    assert (result.exit_code, result.stdout) == (0, "enqueued 2, rejected 0\n")
    (job,) = jobs.producer.find_jobs()
    assert job.job["metadata"] == "xin\r\nchào"
    assert job.idempotency_key == "k-1"


def test_rejected_rows_are_named_by_line_and_field(run, jobs):
    """The others are enqueued; the exit status is 3."""
    lines = [row(), "nope\n", row(page_id=5), row(urgnt=True), row()]
    result = run("enqueue", "-", stdin="".join(lines))
    assert (result.exit_code, result.stdout) == (3, "enqueued 2, rejected 3\n")
    assert result.stderr.splitlines() == [
        "line 2: job: Is not JSON: Expecting value (character 1).",
        "line 3: page_id: Is a number. Quote it: ids are strings of digits.",
        "line 4: urgnt: Is not a field of the API.",
    ]
    assert jobs.producer.count_states()[State.QUEUED] == 2


def test_of_many_rejected_rows_twenty_are_shown(run):
    """And how many more there are."""
    result = run("enqueue", "-", "--format", "jsonl", stdin="nope\n" * 1234)
    lines = result.stderr.splitlines()
    assert len(lines) == 21
    assert lines[19].startswith("line 20: ")
    assert lines[20].startswith("and 1214 more rejected rows")
    assert result.stdout == "enqueued 0, rejected 1234\n"


@pytest.mark.parametrize(
    ("lines", "accepted", "rejected", "status"),
    [
        ([], 0, [], 0),
        ([row()], 1, [], 0),
        (["nope\n"] * 700, 0, range(1, 701), 3),
        ([row(), "nope\n", row(page_id=5), row()], 2, [2, 3], 3),
    ],
)
def test_json_has_every_rejected_row(run, lines, accepted, rejected, status):
    """One object: how many were accepted, and each rejected row's line and errors."""
    result = run("enqueue", "-", "--format", "jsonl", "--json", stdin="".join(lines))
    report = json.loads(result.stdout)
    assert result.exit_code == status
    assert report.keys() == {"accepted", "rejected"}
    assert report["accepted"] == accepted
    assert [found["line"] for found in report["rejected"]] == list(rejected)
    assert all(found["errors"] for found in report["rejected"])


def test_an_unknown_column_is_wrong_usage(run, jobs):
    """It is named, and nothing is enqueued."""
    result = run("enqueue", "-", stdin=f"recipient_id,payload_id,page_id,phone\n1,p,{PAGE},2\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "unknown column 'phone'" in result.stderr
    assert jobs.producer.count_states()[State.QUEUED] == 0


def test_a_file_that_is_not_there_is_wrong_usage(run):
    """As with any program."""
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
def test_when_it_stops_midway_it_says_where(run, monkeypatch, error, message, as_json):
    """So that the rest can be enqueued, and only that."""
    store, calls = Ledger.enqueue, []

    def fail_at_third(self, jobs):
        calls.append(jobs)
        if len(calls) == 3:
            raise error
        return store(self, jobs)

    monkeypatch.setattr(Ledger, "enqueue", fail_at_third)
    text = "nope\n" + row() * 1199
    result = run("enqueue", "-", "--format", "jsonl", *["--json"] * as_json, stdin=text)
    assert result.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 4)
    assert message in result.stderr.splitlines()
    if as_json:
        assert json.loads(result.stdout)["accepted"] == 999
    else:
        assert result.stdout == "enqueued 999, rejected 1\n"


def test_when_it_stops_at_the_start_it_says_so(run, monkeypatch):
    """No line numbers where there is no line behind it."""

    def fail(self, jobs):
        raise QueueUnavailable("Redis at test is away")

    monkeypatch.setattr(Ledger, "enqueue", fail)
    result = run("enqueue", "-", "--format", "jsonl", stdin=row())
    assert result.exit_code == 4
    assert "stopped before the first row; none was enqueued" in result.stderr.splitlines()
