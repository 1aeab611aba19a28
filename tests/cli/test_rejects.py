"""`enqueue --rejects FILE`: rejected rows are corrected and enqueued again."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harasocial_dispatch.cli.input.rejects import open_rejects
from harasocial_dispatch.cli.input.rows import Rows
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import QueueUnavailable
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import Jobs, Run
from support.failures import raising

PAGE, RECIPIENT = "500725830264749", "2560816460648749"
HEADER = "recipient_id,payload_id,page_id,metadata,idempotency_key"


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("utf-16", "\t")]
)
def test_rejected_rows_are_corrected_and_enqueued(
    run: Run, jobs: Jobs, tmp_path: Path, encoding: str, delimiter: str
) -> None:
    """The file has the spreadsheet's format: byte order mark, separator, and ids as text."""
    held = jobs.enqueue(idempotency_key="held")
    file, rejected = tmp_path / "a.csv", tmp_path / "rejected.csv"
    lines = [
        HEADER,
        f"{RECIPIENT},p,{PAGE},first,k-1",
        f"{RECIPIENT},p,5007 2583,chào,k-2",
        f"{RECIPIENT},p,{PAGE},=1+1,held",
        f"2.56082E+15,p,{PAGE},rounded,k-4",
    ]
    file.write_bytes("\r\n".join(lines).replace(",", delimiter).encode(encoding))

    result = run("enqueue", file, "--rejects", rejected)

    assert (result.exit_code, result.stdout) == (3, "1 new, 0 already there, 3 rejected\n")
    text = rejected.read_bytes().decode()
    assert text.startswith("\ufeffreason" + delimiter)
    assert stat.S_IMODE(rejected.stat().st_mode) == 0o600
    rows = list(csv.DictReader(io.StringIO(text[1:]), delimiter=delimiter))
    assert [list(row) for row in rows] == [["reason", *HEADER.split(",")]] * 3
    assert [row["reason"].split(",")[0] for row in rows] == [
        "line 3: page_id: Must be a string of digits",
        f"line 4: idempotency_key: The key belongs to job {held}",
        "line 5: recipient_id: Was rounded by a spreadsheet. Format the column as text",
    ]
    assert [row["recipient_id"] for row in rows] == [f"'{RECIPIENT}", f"'{RECIPIENT}", ""]
    assert [row["metadata"] for row in rows] == ["chào", "'=1+1", "rounded"]

    # without corrections, it is rejected again, with the current reasons
    again = run("enqueue", rejected, "--rejects", tmp_path / "again.csv")
    assert again.stdout == "0 new, 0 already there, 3 rejected\n"
    assert (tmp_path / "again.csv").read_text().count("reason") == 1

    # and after corrections, each row is enqueued
    text = text.replace("5007 2583", PAGE).replace("held\r", "k-3\r")
    text = text.replace(
        f'again."{delimiter}{delimiter}', f'again."{delimiter}{RECIPIENT}{delimiter}'
    )
    text = text.replace(f"again.{delimiter}{delimiter}", f"again.{delimiter}{RECIPIENT}{delimiter}")
    rejected.write_text(text, newline="")
    result = run("enqueue", rejected)
    assert (result.exit_code, result.stdout) == (0, "3 new, 0 already there, 0 rejected\n")
    assert {job.job.get("metadata") for job in jobs.producer.find_jobs(state="queued")} == {
        None, "first", "chào", "=1+1", "rounded"
    }  # fmt: skip


def test_rejected_json_lines_stay_json_lines(run: Run, jobs: Jobs, tmp_path: Path) -> None:
    """The reason is a field that is ignored on reading. Invalid JSON is included as text."""
    body = {"recipient": {"id": RECIPIENT}, "message": {"payload_id": "p"}, "page_id": 5}
    file, rejected = tmp_path / "a.jsonl", tmp_path / "rejected.jsonl"
    file.write_text(json.dumps(body | {"send_at": "2h"}) + "\nnope\n[1]\n")
    assert run("enqueue", file, "--rejects", rejected).exit_code == 3
    lines = [json.loads(line) for line in rejected.read_text().splitlines()]
    assert lines == [
        {
            "reason": "line 1: page_id: Is a number. Quote it: ids are strings of digits.",
            **body,
            "send_at": "2h",
        },
        {"reason": "line 2: job: Is not JSON: Expecting value (character 1).", "line": "nope"},
        {
            "reason": "line 3: job: Must be an object (a dict): the body of the API's request.",
            "line": "[1]",
        },
    ]
    assert "0 new, 0 already there, 3 rejected" in run("enqueue", rejected).stdout
    rejected.write_text(json.dumps(lines[0] | {"page_id": PAGE}))
    assert run("enqueue", rejected).stdout == "1 new, 0 already there, 0 rejected\n"
    (job,) = jobs.producer.find_jobs()
    assert job.state.value == "scheduled"


def test_rows_that_cannot_be_repeated_keep_their_reason(run: Run, tmp_path: Path) -> None:
    """An unreadable row is written only with its reason, so it cannot be sent by mistake."""
    file, rejected = tmp_path / "a.csv", tmp_path / "rejected.csv"
    rows = [
        f"{RECIPIENT},p,{PAGE},caf\xe9,k".encode("latin-1"),
        b'1,"p"q,2,,',
        b"1,p,2,,,,",
        b"1,p",
    ]
    file.write_bytes(b"\n".join([HEADER.encode(), *rows]))
    assert run("enqueue", file, "--rejects", rejected).exit_code == 3
    found = list(csv.reader(io.StringIO(rejected.read_text("utf-8-sig"))))[1:]
    assert [row[0][:23] for row in found] == [
        "line 2: job: Is not UTF", "line 3: job: Is not CSV", "line 4: job: Has 7 cell",
        "line 5: job: Has 2 cell",
    ]  # fmt: skip
    assert [row[1:] for row in found] == [[], [], ["1", "p", "2", "", "", "", ""], ["1", "p"]]
    assert run("enqueue", rejected).stdout == "0 new, 0 already there, 4 rejected\n"


def test_without_rejected_rows_the_file_has_its_header(run: Run, tmp_path: Path) -> None:
    """The rows of an earlier run are removed."""
    file, rejected = tmp_path / "a.csv", tmp_path / "rejected.csv"
    rejected.write_text("old")
    file.write_text(f"{HEADER}\n{RECIPIENT},p,{PAGE},,k\n")
    assert run("enqueue", file, "--rejects", rejected).exit_code == 0
    assert rejected.read_text("utf-8-sig").splitlines() == [f"reason,{HEADER}"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.csv", "is the input file; its other rows would be lost"),
        ("b.jsonl", "the rows are CSV, and the rejected ones will be too: end its name in .csv"),
        ("-", "must be a file, because standard output has the counts"),
        ("nowhere/b.csv", "No such file or directory"),
    ],
)
def test_an_unusable_rejects_file_is_wrong_usage(
    run: Run, jobs: Jobs, tmp_path: Path, name: str, message: str
) -> None:
    """The file is checked before a row is enqueued."""
    file = tmp_path / "a.csv"
    file.write_text(f"{HEADER}\n{RECIPIENT},p,{PAGE},,k\n")
    result = run("enqueue", file, "--rejects", name if name == "-" else tmp_path / name)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "--rejects" in result.stderr
    assert not jobs.producer.find_jobs()
    assert file.read_text().startswith(HEADER)


def test_an_interrupted_run_does_not_change_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An incomplete rejects file could be mistaken for a complete one."""
    monkeypatch.setattr(Ledger, "enqueue", raising(QueueUnavailable("Redis at test is away")))
    file, rejected = tmp_path / "a.csv", tmp_path / "rejected.csv"
    file.write_text(f"{HEADER}\n{RECIPIENT},p,{PAGE},,k\n1\n")
    rejected.write_text("old")
    assert run("enqueue", file, "--rejects", rejected).exit_code == 4
    assert rejected.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@given(
    metadata=st.lists(
        st.text("=+-@'\";,\t\r\n |x0159./:eE＝ắ")
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        min_size=1,
        max_size=4,
    ),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_rejected_row_is_read_back_as_it_was(
    metadata: list[str], delimiter: str, encoding: str
) -> None:
    """Any cells are read back unchanged, in any format of the file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(HEADER.split(","))
    for cell in metadata:
        writer.writerow([RECIPIENT, "p", PAGE, cell, "k"])
    data = text.getvalue().encode(encoding)
    with TemporaryDirectory() as folder:
        rejected = Path(folder, "rejected.csv")
        rows = Rows(io.BytesIO(data), "-", None)
        with open_rejects(rejected, rows) as reject:
            sources = list(rows)
            for row in sources:
                reject(row, row.errors or {"job": ["Is refused."]})
        with rejected.open("rb") as file:
            found = [row.body for row in Rows(file, "-", None)]
    assert found == [row.body for row in sources]
