"""Rows of JSON lines and CSV."""

from __future__ import annotations

import codecs
import io
import json
from typing import Any

import click
import pytest
from harasocial_dispatch.cli.input.rows import MAX_LINE_CHARACTERS, Rows
from hypothesis import given
from hypothesis import strategies as st
from support.memory import peak_bytes

BODY = {"recipient": {"id": "1"}, "message": {"payload_id": "p"}, "page_id": "2"}
HEADER = "recipient_id,payload_id,page_id"


def read(
    data: str | bytes, name: str = "-", file_format: str | None = None
) -> list[tuple[int, Any]]:
    """Return (line, body or errors) of each row."""
    data = data.encode() if isinstance(data, str) else data
    return [
        (row.line, row.body if row.errors is None else row.errors)
        for row in Rows(io.BytesIO(data), name, file_format)
    ]


def test_json_lines_are_numbered_from_1_and_blank_ones_skipped() -> None:
    """The number of a row is its line number in the file."""
    text = f"\n{json.dumps(BODY)}\n\n  \n{json.dumps(BODY)}"
    assert read(text) == [(2, BODY), (5, BODY)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"nope", "Is not JSON: Expecting value (character 1)."),
        (b'{"page_id": "1"', "Is not JSON: Expecting ',' delimiter (character 16)."),
        (b'{"page_id": "\xff"}', "Is not UTF-8 (character 14)."),
        (b'{"a": 1, "a": 2}', "Is not valid JSON: an object has a duplicate key."),
        (b" " * MAX_LINE_CHARACTERS + b"{}", f"Is longer than {MAX_LINE_CHARACTERS} characters."),
    ],
)
def test_an_unreadable_json_line_is_a_row_with_errors(line: bytes, message: str) -> None:
    """The row has an error, and the next line is read normally."""
    good = json.dumps(BODY).encode()
    assert read(line + b"\n" + good, file_format="jsonl") == [(1, {"job": [message]}), (2, BODY)]


def test_endless_nesting_is_an_unreadable_line() -> None:
    """Nesting that exceeds the JSON parser's limit does not stop the program."""
    ((line, errors),) = read("[" * 200_000 + "]", file_format="jsonl")
    assert line == 1
    assert errors["job"][0].startswith("Is not valid JSON")


def test_csv_cells_become_the_body_and_its_options() -> None:
    """Columns can be in any order, empty cells are ignored, and quoted line breaks are kept."""
    text = (
        "metadata,page_id,payload_id,recipient_id,urgent,idempotency_key,delivery\r\n"
        '"a, ""b""\r\nc",2,p,1,yes,k-1,at_most_once\r\n'
        "\r\n"
        ",2,p,1,,,\r\n"
    )
    options = {"urgent": "yes", "idempotency_key": "k-1", "delivery": "at_most_once"}
    assert read(text) == [(2, BODY | {"metadata": 'a, "b"\r\nc'} | options), (5, BODY)]


def test_blank_lines_before_the_header_count_as_lines() -> None:
    """The number of a row is its line number in the file."""
    assert read(f"\n\n{HEADER}\n1,p,2\n") == [(4, BODY)]


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-16-be-sig"]


def encoded(text: str, encoding: str) -> bytes:
    if encoding == "utf-16-be-sig":
        return codecs.BOM_UTF16_BE + text.encode("utf-16-be")
    return text.encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_formats_of_spreadsheets_are_read(encoding: str, delimiter: str, end: str) -> None:
    """All encodings, separators and line endings of spreadsheets are read."""
    lines = [f"{HEADER},metadata", f'1,p,2,"xin{end}chào 👋"', ",,,", "1,p,2,", "1,p"]
    text = "".join(line.replace(",", delimiter) + end for line in lines)
    assert read(encoded(text, encoding)) == [
        (2, BODY | {"metadata": f"xin{end}chào 👋"}),
        (5, BODY),
        (6, {"job": ["Has 2 cells, but the header row has 4."]}),
    ]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_lines_are_read_in_any_encoding(encoding: str) -> None:
    """PowerShell writes JSON lines in UTF-16."""
    body = BODY | {"metadata": "chào 👋"}
    text = json.dumps(body, ensure_ascii=False) + "\r\n"
    assert read(encoded(text * 2, encoding)) == [(1, body), (2, body)]


@pytest.mark.parametrize("broken", ["\udc80".encode("utf-16-le", "surrogatepass") + b"\n\0", b"x"])
def test_a_row_that_is_not_utf_16_is_a_row_with_errors(broken: bytes) -> None:
    """The row has half of a surrogate pair, or an odd byte at the end."""
    data = f"{HEADER}\n1,p,".encode("utf-16") + broken
    ((line, errors),) = read(data)
    assert (line, errors["job"][0][:14]) == (2, "Is not UTF-16.")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (b"1,p", "Has 2 cells, but the header row has 3."),
        (b"1,p,2,3", "Has 4 cells, but the header row has 3."),
        (b"1,\xff,2", 'Is not UTF-8. Save the file as "CSV UTF-8".'),
        (b'1,"p"q,2', "Is not CSV: ',' expected after '\"'."),
    ],
)
def test_an_unreadable_csv_row_is_a_row_with_errors(cells: bytes, message: str) -> None:
    """The row has an error, and the next row is read normally."""
    data = HEADER.encode() + b"\n" + cells + b"\n1,p,2\n"
    assert read(data) == [(2, {"job": [message]}), (3, BODY)]


@pytest.mark.parametrize("rounded", ["2.56082E+15", "2,56E+15", "3e15"])
def test_the_error_of_a_rounded_id_explains_the_rounding(rounded: str) -> None:
    """The error explains the rounding, instead of requiring a string of digits."""
    message = "Was rounded by a spreadsheet. Format the column as text, and enter the value again."
    text = f'{HEADER}\n"{rounded}",p,2\n1,p,"{rounded}"\n1,3e15,2\n'
    assert read(text) == [
        (2, {"recipient_id": [message]}),
        (3, {"page_id": [message]}),
        (4, {**BODY, "message": {"payload_id": "3e15"}}),
    ]


def test_ids_that_all_end_in_zeros_were_rounded() -> None:
    """In a wide column, a spreadsheet replaces the lost digits by zeros."""
    rounded = [f"{25608164606487 + i}0{'0' * (i % 2 + 1)}" for i in range(600)]
    text = "\n".join(
        [
            HEADER,
            *(f"{recipient},p,50072583026474{i % 9}" for i, recipient in enumerate(rounded)),
            "2560816460648749,p,1",
            "'123456789012345000,p,1",
        ]
    )
    found = read(text)
    message = (
        "Ends in zeros after its 15th digit, like every long id in this column: a spreadsheet "
        "has rounded it. Format the column as text, and enter the value again."
    )
    assert found[:600] == [(line, {"recipient_id": [message]}) for line in range(2, 602)]
    # A rounded row after the checked sample is read, and so is a number that is marked as text.
    assert found[600:] == [
        (602, BODY | {"recipient": {"id": "2560816460648749"}, "page_id": "1"}),
        (603, BODY | {"recipient": {"id": "123456789012345000"}, "page_id": "1"}),
    ]


def test_ids_that_may_have_been_rounded_are_read_and_warned_of() -> None:
    """The rounding is not certain, so the rows are not rejected."""
    ids = [f"{25608164606487 + i}00" for i in range(5)] + ["2560816460648749"]
    rows = Rows(io.BytesIO("\n".join([HEADER, *(f"{i},p,2" for i in ids)]).encode()), "-", None)
    assert all(row.errors is None for row in rows)
    assert "many ids in the column recipient_id of - end in zeros" in rows.notices[0]


def test_a_key_that_a_spreadsheet_rounded_is_refused() -> None:
    """Many rows would have the same rounded key, and only one of them would be sent."""
    text = f"{HEADER},idempotency_key\n1,p,2,2.56082E+15\n1,p,2,12e34\n"
    (_, errors), (_, body) = read(text)
    assert errors.keys() == {"idempotency_key"}
    assert body["idempotency_key"] == "12e34"


EXPORTED: dict[str, Any] = {
    "job_id": "ab12", "state": "failed", "error_code": "551", "page_id": "2", "job": BODY,
    "idempotency_key": "k", "delivery": "at_most_once", "send_at": None, "attempts": [],
}  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_an_exported_job_is_a_row(state: str) -> None:
    """The key is derived from its id, because its own key belongs to the failed job."""
    options = {"idempotency_key": "again:ab12", "delivery": "at_most_once"}
    assert read(json.dumps(EXPORTED | {"state": state})) == [(1, BODY | options)]


@pytest.mark.parametrize("state", ["sent", "queued", "sending", None, ["failed"]])
def test_an_exported_job_that_may_have_been_sent_is_rejected(state: str | list[str] | None) -> None:
    """For example, a job that `results --json` lists."""
    ((_, errors),) = read(json.dumps(EXPORTED | {"state": state}))
    assert errors.keys() == {"state"}


def test_the_error_of_an_unclosed_quote_has_the_last_line() -> None:
    """The error has the last line that the quoted cell includes."""
    ((line, errors),) = read(f'{HEADER}\n1,"p,2\n1,p,2\n1,p,2\n')
    assert (line, errors["job"]) == (2, ["Is not CSV: unexpected end of data. Read up to line 4."])


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (f"{HEADER},phone\n", "-", "unknown column 'phone'"),
        (f"{HEADER},page_id\n", "-", "column 'page_id' twice"),
        ("recipient_id,payload_id\n", "a.csv", "no column 'page_id'"),
        ('recipient_id,"\n', "a.csv", "header row of a.csv is not CSV"),
        (b"PK\x03\x04\x14\x00", "a.xlsx", 'a.xlsx is a workbook .* Save it as "CSV UTF-8"'),
        (b"PK\x03\x04\x14\x00", "a.csv", 'a.csv is a workbook .* Save it as "CSV UTF-8"'),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "-", 'Excel workbook .* Save it as "CSV UTF-8"'),
        (b"\x1f\x8b\x08", "-", "compressed. Decompress it first"),
        ("[\n{},\n{}\n]", "a.json", "expected one object per line"),
    ],
)
def test_an_unreadable_file_is_wrong_usage(data: str | bytes, name: str, message: str) -> None:
    """No row is read."""
    with pytest.raises(click.UsageError, match=message):
        read(data, name)


@pytest.mark.parametrize(
    ("name", "file_format", "data", "rows"),
    [
        ("a.csv", None, f"{HEADER}\n1,p,2\n", 1),
        ("a.CSV", None, f"{HEADER}\n1,p,2\n", 1),
        ("a.jsonl", None, "nope\n", 1),
        ("a.ndjson", None, json.dumps(BODY), 1),
        ("a.txt", None, json.dumps(BODY), 1),
        ("-", None, f"{HEADER}\n1,p,2\n", 1),
        ("a.jsonl", "csv", f"{HEADER}\n1,p,2\n", 1),
        ("-", None, "", 0),
        ("-", None, "\n\n", 0),
    ],
)
def test_the_format_comes_from_the_option_the_extension_or_the_first_character(
    name: str, file_format: str | None, data: str, rows: int
) -> None:
    """The sources have this order of precedence."""
    assert len(read(data, name, file_format)) == rows


@given(
    st.binary(max_size=300)
    | st.binary(max_size=200).map(lambda data: f"{HEADER}\n".encode() + data)
    | st.binary(max_size=200).map(lambda data: f"{HEADER}\n".encode("utf-16") + data),
    st.sampled_from(["a.csv", "a.jsonl", "-"]),
)
def test_any_bytes_are_read_or_rejected(data: bytes, name: str) -> None:
    """Any file gives rows with a body, rows with errors, or a usage error."""
    try:
        rows = list(Rows(io.BytesIO(data), name, None))
    except click.UsageError:
        return
    numbers = [row.line for row in rows]
    assert numbers == sorted(set(numbers))
    assert all(number <= len(data.splitlines()) + 1 for number in numbers)


class EndlessLines(io.BufferedIOBase):
    """A stream that generates the given number of bytes of lines when it is read."""

    def __init__(self, line: bytes, size: int) -> None:
        self._line = line
        self._left = size

    def read1(self, limit: int = -1) -> bytes:
        """Return one line, or its first `limit` bytes."""
        line = self._line[: min(limit, self._left)]
        self._left -= len(line)
        return line


@pytest.mark.parametrize(
    ("line", "size", "most"),
    [
        (json.dumps(BODY).encode() + b"\n", 1_000_000, 100_000),
        (b"x" * (MAX_LINE_CHARACTERS + 1), 30_000_000, 6_000_000),
    ],
)
def test_a_large_file_is_not_held_in_memory(line: bytes, size: int, most: int) -> None:
    """Many lines, or one endless line, need only a small part of their size in memory."""
    peak = peak_bytes(
        f"assert sum(1 for _ in Rows(EndlessLines({line!r}, {size}), '-', 'jsonl')) >= 1",
        # The first use of the reader allocates memory once.
        imports="from test_rows import EndlessLines, Rows\n"
        f"list(Rows(EndlessLines({line[:1000]!r}, 1000), '-', 'jsonl'))",
        folder="cli",
    )
    assert peak < most
