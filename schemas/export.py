"""Export failed jobs as rows of a CSV file, and as JSON lines.

A CSV file has no types, so a spreadsheet guesses them: it rounds the digits of a long id, reads
`1/99` as a date and runs text that looks like a formula. A leading apostrophe makes such a cell
text in Excel and LibreOffice. The apostrophe stays visible and is kept when the file is saved
again, so `unescape_cell` can remove exactly what `escape_cell` added. The alternatives are worse:
`="123"` is a formula, which some spreadsheets and mail filters block; a leading tab or space is
dropped on import, and the digits are then rounded; quotes do not prevent rounding.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence

from .error_codes import explain_any
from .job_record import JobRecord, iso_utc
from .language import Language

COLUMNS = (
    "job_id",
    "failed_at",
    "error_code",
    "error_message",
    "meaning",
    "what_to_do",
    "http_status",
    "attempts",
    "page_id",
    "campaign",
    "recipient_id",
    "payload_id",
    "metadata",
    "idempotency_key",
    "delivery",
    "enqueued_at",
)

#: The first character of a CSV file. Without it, Excel does not read the file as UTF-8.
BYTE_ORDER_MARK = "\ufeff"

_FORMULA = r"[=+\-@＝＋－＠]"
#: Excel rounds numbers of 16 digits or more. From 12 digits it saves them as 2.56082E+15.
_NUMBER_OR_DATE = r"""
    [0-9]{12,} | 0[0-9]+
    | [0-9]+ [.,] [0-9]+
    | [0-9]+ (?:[.,][0-9]*)? [eE] [+-]? [0-9]+
    | [0-9]{1,4} [-/.] [0-9]{1,4} (?:[-/.][0-9]{1,4})?
    | [0-9]{1,4} : [0-9]{2} (?: : [0-9]{2})?
"""
#: A cell that a spreadsheet would change or run. Leading apostrophes are included, so that a text
#: that begins with apostrophes is escaped too and can be restored.
_CHANGED = re.compile(
    rf"""'*(?: [\t\r\n] | [\s"]*{_FORMULA} | \s*(?:{_NUMBER_OR_DATE})\s*\Z )""", re.VERBOSE
)
#: A formula within a cell, after a character that separates cells or rows in a spreadsheet that
#: expects semicolons or tabs. Quotes do not protect there, because they do not begin the cell.
_BEGINNING = r"""([;\t\r\n][\s"]*)"""
_INNER = re.compile(rf"{_BEGINNING}('*{_FORMULA})")
_PROTECTED_INNER = re.compile(rf"{_BEGINNING}'('*{_FORMULA})")


def row(record: JobRecord, language: Language) -> list[object]:
    """Return a job as a row of the CSV file, in the order of `COLUMNS`.

    Args:
        language: of the explanation of its error code.
    """
    body = record.job
    meaning, what_to_do = explain_any(record.error_code, language)
    return [
        record.job_id,
        iso_utc(record.finished_at),
        record.error_code,
        record.error_message,
        meaning,
        what_to_do,
        record.http_status,
        record.attempt_count,
        record.page_id,
        record.campaign,
        body["recipient"]["id"],
        body["message"]["payload_id"],
        body.get("metadata"),
        record.idempotency_key,
        record.delivery.value,
        iso_utc(record.enqueued_at),
    ]


def csv_header() -> str:
    """Return the beginning of a CSV file: the byte order mark and the header row."""
    return BYTE_ORDER_MARK + csv_text([COLUMNS])


def csv_text(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Return rows as CSV. Texts are escaped with `escape_cell`."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    for each in rows:
        writer.writerow([escape_cell(cell) if isinstance(cell, str) else cell for cell in each])
    return text.getvalue()


def escape_cell(cell: str) -> str:
    """Add an apostrophe wherever a spreadsheet would change or run the text."""
    if _CHANGED.match(cell):
        cell = "'" + cell
    return _INNER.sub(r"\1'\2", cell)


def unescape_cell(cell: str) -> str:
    """Undo `escape_cell`. Return other texts unchanged."""
    if "'" not in cell:
        return cell
    cell = _PROTECTED_INNER.sub(r"\1\2", cell)
    return cell[1:] if cell.startswith("'") and _CHANGED.match(cell, 1) else cell


def json_lines(records: Iterable[JobRecord]) -> str:
    """Return jobs as JSON lines, in the format of `show --json`."""
    return "".join(json.dumps(record.as_json()) + "\n" for record in records)
