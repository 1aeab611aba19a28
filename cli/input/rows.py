"""Read the rows of `enqueue` from JSON lines or CSV, one at a time, in bounded memory."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, NamedTuple

import click

from ...producer.preview import SeenKeys
from ...schemas import InvalidJob, State, parse_row
from ...schemas.export import COLUMNS as EXPORTED_COLUMNS
from ...schemas.export import unescape_cell
from ...schemas.new_job import OPTION_NAMES, with_default_key
from ...schemas.reply import unique_keys
from ..output.printing import NAME
from .decoding import open_text, undecodable_at
from .rounding import ends_in_zeros, is_rounded_id, is_rounded_key, judge_column
from .times import parse_time

#: Maximum length of a line in characters; the largest valid job has a hundredth of this.
MAX_LINE_CHARACTERS = 1 << 20
#: The column or JSON field with the reason, in a rejects file. It is ignored when it is read.
REASON = "reason"

FORMAT_BY_ENDING: Mapping[str, Literal["csv", "jsonl"]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_REQUIRED_COLUMNS = ("recipient_id", "payload_id", "page_id")
_COLUMNS = (*_REQUIRED_COLUMNS, "metadata", *sorted(OPTION_NAMES))
_READ_COLUMNS = frozenset((*_COLUMNS, "job_id"))
#: Columns of an exported file that describe the failed job.
_DESCRIBING = tuple(title for title in EXPORTED_COLUMNS if title not in _COLUMNS)
#: Spreadsheets write semicolons in locales whose decimal separator is a comma.
_DELIMITERS = ",;\t"

#: Number of rows to check for ids that a spreadsheet has rounded.
_SAMPLE_ROWS = 500
_ID_COLUMNS = ("recipient_id", "page_id")
_ROUNDED = "Was rounded by a spreadsheet. Format the column as text, and enter the value again."
_ROUNDED_LIKE_ALL = (
    "Ends in zeros after its 15th digit, like every long id in this column: a spreadsheet has "
    "rounded it. Format the column as text, and enter the value again."
)

_TIMES = ("send_at", "expires_at")
_NOT_A_TIME = (
    "Must be a time, such as 2h or 1d (from now), 2026-01-31 09:00 (local time) or "
    "2026-01-31T09:00:00+07:00."
)
#: Final states of exported jobs whose message was not sent.
_ENDED_UNSENT = (State.FAILED.value, State.CANCELLED.value)

_NumberedLines = Iterator[tuple[int, str]]


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        line: the number of its first line, counted from 1.
        source: the original row, for a rejects file: the cells of CSV, the value of a JSON line
            or, if it is not JSON, its text. None if it cannot be written again.
        body: the argument for `enqueue_many`; None if the row cannot be read.
        errors: why it cannot be read, by field as in `InvalidJob`.
    """

    line: int
    source: Any = None
    body: Any = None
    errors: dict[str, list[str]] | None = None


class Rows:
    """The rows of a file, without blank lines. Iterate once.

    Args:
        stream: UTF-8 or UTF-16. It is read from its current position, and not closed.
        name: of the file. If `file_format` is None, the format is taken from the file extension
            or, without a known extension, from the first character.
        file_format: "jsonl", "csv" or None.
        campaign: if given, each row is in this campaign; it overrides a value in the row.
        allow_duplicates: whether rows of the campaign with the same message get different keys.

    Attributes:
        name: as given.
        size_bytes: of a regular file; None otherwise.
        file_format: "jsonl" or "csv".
        columns: of CSV, from its header row.
        delimiter: of CSV.
        notices: notices about the file for the user; the iteration may add more.

    Raises:
        click.UsageError: the whole file cannot be read, for example a workbook, or CSV with an
            unknown column.
    """

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        file_format: str | None,
        *,
        campaign: str | None = None,
        allow_duplicates: bool = False,
    ) -> None:
        text = open_text(stream, name)
        self.name = name
        self.size_bytes = _size(stream)
        self._stream = stream
        self._encoding = text.encoding.upper()[:6].rstrip("-")
        self.columns: Sequence[str] = ()
        self.delimiter = ","
        self.notices: list[str] = []
        lines = enumerate(_bounded_lines(text), start=1)
        first = next(((number, line) for number, line in lines if line.strip()), None)
        known_format = file_format or FORMAT_BY_ENDING.get(PurePath(name).suffix.lower())
        if first is None:
            self.file_format = known_format or "csv"
            self._rows: Iterator[Row] = iter(())
            return
        beginning = first[1].strip()
        if known_format != "csv" and beginning == "[":
            raise click.UsageError(
                f"{name} is one JSON list; expected one object per line, as from: jq -c '.[]'"
            )
        self.file_format = known_format or ("jsonl" if beginning[0] in "{[" else "csv")
        all_lines = chain([first], lines)
        rows = (
            self._json_rows(all_lines) if self.file_format == "jsonl" else self._csv_rows(all_lines)
        )
        self._rows = map(_with_times, rows)
        if campaign is not None:
            self._rows = _campaign_rows(self._rows, campaign, numbered=allow_duplicates)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def bytes_read(self) -> int:
        """The number of bytes read; 0 for a pipe."""
        return self._stream.tell() if self._stream.seekable() else 0

    def _json_rows(self, lines: _NumberedLines) -> Iterator[Row]:
        for number, line in lines:
            text = line.strip()
            if not text:
                continue
            if len(line) > MAX_LINE_CHARACTERS:
                yield _unreadable(number, f"Is longer than {MAX_LINE_CHARACTERS} characters.")
                continue
            if (index := undecodable_at(line)) >= 0:
                yield _unreadable(number, f"Is not {self._encoding} (character {index + 1}).")
                continue
            try:
                value = json.loads(line.rstrip(), object_pairs_hook=unique_keys)
            except json.JSONDecodeError as error:
                message = f"Is not JSON: {error.msg} (character {error.pos + 1})."
                yield _unreadable(number, message, text)
            except (ValueError, RecursionError) as error:
                yield _unreadable(number, f"Is not valid JSON: {error}.", text)
            else:
                yield _json_row(number, value)

    def _csv_rows(self, lines: _NumberedLines) -> Iterator[Row]:
        first_number, header = next(lines)
        self.delimiter = max(_DELIMITERS, key=header.count)
        texts = (line for _, line in chain([(0, header)], lines))
        reader = csv.reader(texts, delimiter=self.delimiter, strict=True)
        try:
            self.columns = self._known_columns(next(reader))
        except csv.Error as error:
            raise click.UsageError(f"The header row of {self.name} is not CSV: {error}.") from None
        numbered = _numbered_cells(reader, first_number)
        sample = list(islice(numbered, _SAMPLE_ROWS))
        rounded = self._rounded_columns([cells for _, cells in sample if isinstance(cells, list)])
        return self._body_rows(chain(sample, numbered), rounded)

    def _body_rows(
        self, numbered: Iterator[tuple[int, list[str] | str]], rounded: Sequence[str]
    ) -> Iterator[Row]:
        """Yield the rows below the header."""
        for number, cells in numbered:
            if isinstance(cells, str):
                yield _unreadable(number, cells)
            elif len(cells) != len(self.columns):
                message = f"Has {len(cells)} cells, but the header row has {len(self.columns)}."
                yield _unreadable(number, message, cells)
            elif undecodable_at("".join(cells)) >= 0:
                advice = 'Save the file as "CSV UTF-8".'
                yield _unreadable(number, f"Is not {self._encoding}. {advice}")
            else:
                yield _csv_row(number, self.columns, cells, rounded)

    def _rounded_columns(self, sample: Sequence[Sequence[str]]) -> list[str]:
        """Return the columns whose long ids a spreadsheet has rounded; warn about doubtful ones."""
        found = []
        for index, column in enumerate(self.columns):
            if column not in _ID_COLUMNS:
                continue
            # A number with a leading apostrophe is a text, which is not rounded.
            judgment = judge_column(cells[index] for cells in sample if len(cells) > index)
            if judgment == "rounded":
                found.append(column)
            elif judgment == "doubtful":
                self.notices.append(
                    f"warning: many ids in the column {column} of {self.name} end in zeros after "
                    "their 15th digit. If the file was saved by a spreadsheet, some may have been "
                    "rounded: compare them with the original data"
                )
        return found

    def _known_columns(self, header: list[str]) -> list[str]:
        name = self.name
        columns = [title.strip() for title in header]
        unknown = [title for title in columns if title not in (*_COLUMNS, *_DESCRIBING, REASON)]
        if unknown:
            raise click.UsageError(
                f"{name} has the unknown column {unknown[0]!r}; "
                f"known columns are {', '.join(_COLUMNS)}."
            )
        twice = [title for title in columns if columns.count(title) > 1]
        if twice:
            raise click.UsageError(f"{name} has the column {twice[0]!r} twice.")
        missing = [title for title in _REQUIRED_COLUMNS if title not in columns]
        if missing:
            raise click.UsageError(
                f"{name} has no column {missing[0]!r}; its header row must name it."
            )
        ignored = [title for title in columns if title in _DESCRIBING and title != "job_id"]
        if ignored:
            self.notices.append(
                f"{name} has the columns {', '.join(ignored)} of an export; they are ignored"
            )
        if "job_id" in columns:
            self.notices.append(
                f"each row of {name} with a job_id becomes one new job, even if it is enqueued "
                "several times: its idempotency key is derived from the job_id. The failed job "
                f"stays failed; to send it again instead: {NAME} replay"
            )
        return columns


def _size(stream: BinaryIO) -> int | None:
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _bounded_lines(text: io.TextIOWrapper) -> Iterator[str]:
    """Yield the lines. A line that is too long is cut to one character more than the limit."""
    while line := text.readline(MAX_LINE_CHARACTERS + 1):
        yield line
        while len(line) > MAX_LINE_CHARACTERS and line[-1] not in "\r\n":
            line = text.readline(MAX_LINE_CHARACTERS + 1)


def _json_row(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(number, value, value)
    body = {name: field for name, field in value.items() if name != REASON}
    if not ("job_id" in body and isinstance(body.get("job"), dict)):
        return Row(number, value, body)
    # An exported job: ignore its times, as in an exported CSV file.
    if body.get("state") not in _ENDED_UNSENT:
        message = "Is a job that neither failed nor was canceled: it could be sent twice."
        return Row(number, value, errors={"state": [message]})
    options = {name: body[name] for name in ("delivery", "campaign") if body.get(name) is not None}
    options["idempotency_key"] = _new_key(str(body["job_id"]))
    return Row(number, value, body["job"] | options)


def _new_key(exported_job_id: str) -> str:
    """Return a new idempotency key for an exported row.

    The key in the row belongs to the failed job, so enqueuing it would only return that job.
    """
    return f"again:{exported_job_id}"


def _with_times(row: Row) -> Row:
    """Return the row with its times parsed as in the command line's options."""
    body = row.body
    if not isinstance(body, dict) or not ("send_at" in body or "expires_at" in body):
        return row
    times: dict[str, datetime] = {}
    errors: dict[str, list[str]] = {}
    for name in _TIMES:
        # The validation of the job rejects other types.
        if isinstance(text := body.get(name), str):
            try:
                times[name] = parse_time(text, now=datetime.now(timezone.utc), ahead=True)
            except ValueError:
                errors[name] = [_NOT_A_TIME]
    return row._replace(body=None, errors=errors) if errors else row._replace(body=body | times)


def _campaign_rows(rows: Iterable[Row], campaign: str, *, numbered: bool) -> Iterator[Row]:
    """Yield the rows as rows of the campaign.

    If `numbered`, each repetition of a message gets a different key. The keys are the same when the
    file is read again.
    """
    with closing(SeenKeys()) as seen:
        for row in rows:
            if isinstance(row.body, dict):
                row.body["campaign"] = campaign
                if numbered and row.body.get("idempotency_key") is None:
                    _number(row.body, seen)
            yield row


def _number(body: dict[str, Any], seen: SeenKeys) -> None:
    try:
        key = with_default_key(parse_row(body)).idempotency_key or ""
    except InvalidJob:
        return  # The row will be rejected.
    occurrence, _ = seen.add(key)
    if occurrence > 1:
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        body["idempotency_key"] = f"{body['campaign']}/{digest}/{occurrence}"


def _unreadable(number: int, message: str, source: Any = None) -> Row:
    return Row(number, source, errors={"job": [message]})


def _numbered_cells(reader: Any, first_number: int) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the line number of each row, with its cells or the error that prevents reading them."""
    while True:
        number = first_number + reader.line_num
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            last = first_number + reader.line_num - 1
            yield number, f"Is not CSV: {error}." + f" Read up to line {last}." * (last > number)
            continue
        # Spreadsheets write empty cells for a cleared row.
        if any(cells):
            yield number, cells


def _csv_row(number: int, columns: Sequence[str], cells: list[str], rounded: Iterable[str]) -> Row:
    """Return the row of `cells`; `rounded` are the columns with rounded ids."""
    body: dict[str, Any] = {
        column: unescape_cell(cell) if "'" in cell else cell
        for column, cell in zip(columns, cells, strict=True)
        if cell and column in _READ_COLUMNS
    }
    errors = {column: [_ROUNDED] for column in _ID_COLUMNS if is_rounded_id(body.get(column, ""))}
    if is_rounded_key(body.get("idempotency_key", "")):
        errors["idempotency_key"] = [_ROUNDED]
    for column in rounded:
        # Use the cell, not the body: an id with a leading apostrophe is not rounded.
        if ends_in_zeros(cells[columns.index(column)]):
            errors[column] = [_ROUNDED_LIKE_ALL]
    if errors:
        # Otherwise, the rounded value would be accepted when the rejects file is enqueued.
        kept = [
            "" if column in errors else cell for column, cell in zip(columns, cells, strict=True)
        ]
        return Row(number, kept, errors=errors)
    if (exported_job_id := body.pop("job_id", None)) is not None:
        body["idempotency_key"] = _new_key(exported_job_id)
    body["recipient"] = {"id": body.pop("recipient_id")} if "recipient_id" in body else {}
    body["message"] = {"payload_id": body.pop("payload_id")} if "payload_id" in body else {}
    return Row(number, cells, body)
