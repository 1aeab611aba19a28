"""Reads the rows of `enqueue` from JSON lines or CSV, one at a time, in bounded memory."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO

import click

from ...schemas.export import COLUMNS as EXPORTED_COLUMNS
from ...schemas.export import unprotected
from ...schemas.new_job import OPTION_NAMES
from ..output.printing import print_notice
from .options import NAME
from .times import parse_time

#: Bytes of one line that are read; the largest valid job has a hundredth of this.
MAX_LINE_BYTES = 1 << 20

_FORMAT_BY_ENDING = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
_REQUIRED_COLUMNS = ("recipient_id", "payload_id", "page_id")
_COLUMNS = (*_REQUIRED_COLUMNS, "metadata", *sorted(OPTION_NAMES))
#: Columns of an exported file that describe the failed job.
_DESCRIBING = tuple(title for title in EXPORTED_COLUMNS if title not in _COLUMNS)
#: Spreadsheets write a semicolon where the comma is the decimal sign.
_DELIMITERS = ",;\t"

#: A long number as a spreadsheet shows and saves it, its last digits lost: 2.56082E+15.
_ROUNDED = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")

_TIMES = ("send_at", "expires_at")
_NOT_A_TIME = (
    "Must be a time, such as 2h or 1d (from now), 2026-01-31 09:00 (local time) or "
    "2026-01-31T09:00:00+07:00."
)

_NumberedLines = Iterator[tuple[int, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row: the line it begins on, counted from 1, and what `enqueue_many` takes.

    If it cannot be read, `errors` say why, by field as in `InvalidJob`, and there is no body.
    """

    line: int
    body: Any = None
    errors: dict[str, list[str]] | None = None


def read_rows(stream: BinaryIO, name: str, file_format: str | None) -> Iterator[Row]:
    """Yield the rows of `stream`; blank lines are none.

    Args:
        stream: UTF-8, with or without a byte order mark.
        name: of the file; its ending tells the format, unless `file_format` does. Where neither
            does, the first character tells.
        file_format: "jsonl", "csv" or None.

    Raises:
        click.UsageError: the file as a whole is not what can be read, such as CSV with a column
            that is not known.
    """
    lines = enumerate(_bounded_lines(stream), start=1)
    first = next(((number, line) for number, line in lines if line.strip()), None)
    if first is None:
        return
    number, line = first
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise click.UsageError(f"{name} is UTF-16; save it as UTF-8.")
    line = line.removeprefix(codecs.BOM_UTF8)
    file_format = file_format or _FORMAT_BY_ENDING.get(PurePath(name).suffix.lower())
    if file_format != "csv" and line.strip() == b"[":
        raise click.UsageError(
            f"{name} is one JSON list; expected one object a line, as by: jq -c '.[]'"
        )
    if file_format is None:
        file_format = "jsonl" if line.lstrip()[:1] in (b"{", b"[") else "csv"
    all_lines = chain([(number, line)], lines)
    rows = _json_rows(all_lines) if file_format == "jsonl" else _csv_rows(all_lines, name)
    yield from map(_with_times, rows)


def _bounded_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines; of one that is too long, its beginning, one byte longer than allowed."""
    while line := stream.readline(MAX_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES + 1)


def _json_rows(lines: Iterable[tuple[int, bytes]]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        if len(line) > MAX_LINE_BYTES:
            yield _unreadable(number, f"Is longer than {MAX_LINE_BYTES} bytes.")
            continue
        try:
            yield Row(
                line=number, body=json.loads(line.decode().rstrip(), object_pairs_hook=_unique_keys)
            )
        except UnicodeDecodeError as error:
            yield _unreadable(number, f"Is not UTF-8 (byte {error.start + 1}).")
        except json.JSONDecodeError as error:
            yield _unreadable(number, f"Is not JSON: {error.msg} (character {error.pos + 1}).")
        except (ValueError, RecursionError) as error:
            yield _unreadable(number, f"Is not JSON that can be read: {error}.")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # One of the two values would be lost without a word.
        raise ValueError("a key stands twice in one object")
    return found


def _with_times(row: Row) -> Row:
    """Return the row with its times read as those of the command line's options."""
    if not isinstance(row.body, dict):
        return row
    times: dict[str, datetime] = {}
    errors: dict[str, list[str]] = {}
    for name in _TIMES:
        # What is not a text is left for the contract to refuse.
        if isinstance(text := row.body.get(name), str):
            try:
                times[name] = parse_time(text, now=datetime.now(timezone.utc), ahead=True)
            except ValueError:
                errors[name] = [_NOT_A_TIME]
    if errors:
        return Row(line=row.line, errors=errors)
    return replace(row, body=row.body | times) if times else row


def _unreadable(number: int, message: str) -> Row:
    return Row(line=number, errors={"job": [message]})


def _csv_rows(lines: _NumberedLines, name: str) -> Iterator[Row]:
    first_number, header = next(lines)
    delimiter = max(_DELIMITERS, key=header.decode(errors="replace").count)
    texts = (line.decode(errors="surrogateescape") for _, line in chain([(0, header)], lines))
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    try:
        columns = _known_columns(next(reader), name)
    except csv.Error as error:
        raise click.UsageError(f"The header row of {name} is not CSV: {error}.") from None
    while True:
        number = first_number + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = first_number + reader.line_num - 1
            yield _unreadable(
                number, f"Is not CSV: {error}." + (f" Read up to line {last}." * (last > number))
            )
            continue
        if cells:
            yield _csv_row(number, columns, cells)


def _known_columns(header: list[str], name: str) -> list[str]:
    columns = [title.strip() for title in header]
    unknown = [title for title in columns if title not in (*_COLUMNS, *_DESCRIBING)]
    if unknown:
        raise click.UsageError(
            f"{name} has the unknown column {unknown[0]!r}; known are {', '.join(_COLUMNS)}."
        )
    twice = [title for title in columns if columns.count(title) > 1]
    if twice:
        raise click.UsageError(f"{name} has the column {twice[0]!r} twice.")
    missing = [title for title in _REQUIRED_COLUMNS if title not in columns]
    if missing:
        raise click.UsageError(f"{name} has no column {missing[0]!r}; its header row must name it.")
    ignored = [title for title in columns if title in _DESCRIBING and title != "job_id"]
    if ignored:
        print_notice(f"{name} has the columns {', '.join(ignored)} of an export; they are ignored")
    if "job_id" in columns:
        print_notice(
            f"each row of {name} with a job_id becomes a new job, however often it is enqueued: "
            "its idempotency key is made from the job_id. The failed job itself stays failed; to "
            f"send that again instead: {NAME} replay"
        )
    return columns


def _new_key(exported_job_id: str | None) -> dict[str, str]:
    """Return the idempotency key of a row that was exported.

    The key in such a row belongs to the failed job, which would count as the row's job.
    """
    return {} if exported_job_id is None else {"idempotency_key": f"again:{exported_job_id}"}


def _csv_row(number: int, columns: list[str], cells: list[str]) -> Row:
    if len(cells) != len(columns):
        return _unreadable(
            number, f"Has {len(cells)} cells, where the header row has {len(columns)}."
        )
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        return _unreadable(number, "Is not UTF-8.")
    values = {
        column: unprotected(cell) for column, cell in zip(columns, cells, strict=True) if cell
    }
    values = {column: value for column, value in values.items() if column in _COLUMNS} | _new_key(
        values.get("job_id")
    )
    ids = ("recipient_id", "page_id")
    rounded = [column for column in ids if _ROUNDED.fullmatch(values.get(column, ""))]
    if rounded:
        message = "Was rounded by a spreadsheet; format the column as text, and enter it again."
        return Row(line=number, errors={column: [message] for column in rounded})
    body: dict[str, Any] = {"recipient": {}, "message": {}}
    if "recipient_id" in values:
        body["recipient"]["id"] = values.pop("recipient_id")
    if "payload_id" in values:
        body["message"]["payload_id"] = values.pop("payload_id")
    return Row(line=number, body=body | values)
