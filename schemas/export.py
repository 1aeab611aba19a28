"""Jobs as the rows of a CSV file, and as JSON lines: what every export of failed jobs holds.

A CSV file says nothing about the types of its cells: a spreadsheet guesses, rounds the digits of a
long id, takes `1/99` for a date and runs what looks like a formula. A leading apostrophe makes such
a cell a text in Excel and LibreOffice alike. It stays visible there, and it is kept when the file
is saved again, so `unprotected` can remove exactly what was added. The alternatives are worse:
`="123"` is a formula, which a careful spreadsheet or mail filter blocks; a leading tab or blank is
dropped on import, and the digits with it; and quotes do not prevent rounding.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence

from .job_record import JobRecord, iso_utc

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

#: What a CSV file begins with: without it, Excel does not take the file for UTF-8.
BYTE_ORDER_MARK = "\ufeff"

_FORMULA = r"[=+\-@＝＋－＠]"
#: Excel rounds from 16 digits on, and from 12 on saves 2.56082E+15 for what it shows so.
_NUMBER_OR_DATE = r"""
    [0-9]{12,} | 0[0-9]+
    | [0-9]+ [.,] [0-9]+
    | [0-9]+ (?:[.,][0-9]*)? [eE] [+-]? [0-9]+
    | [0-9]{1,4} [-/.] [0-9]{1,4} (?:[-/.][0-9]{1,4})?
    | [0-9]{1,4} : [0-9]{2} (?: : [0-9]{2})?
"""
#: A cell that a spreadsheet would change or run; with any apostrophes in front, so that those that
#: are part of the text can be told from the added one.
_CHANGED = re.compile(
    rf"""'*(?: [\t\r\n] | [\s"]*{_FORMULA} | \s*(?:{_NUMBER_OR_DATE})\s*\Z )""", re.VERBOSE
)
#: The same within a cell, after what separates cells or rows where a spreadsheet expects semicolons
#: or tabs: quotes do not protect there, since they do not begin a cell.
_BEGINNING = r"""([;\t\r\n][\s"]*)"""
_INNER = re.compile(rf"{_BEGINNING}('*{_FORMULA})")
_PROTECTED_INNER = re.compile(rf"{_BEGINNING}'('*{_FORMULA})")


def row(record: JobRecord, explanation: Sequence[str]) -> list[object]:
    """Return a job as a row of the CSV, in the order of `COLUMNS`.

    Args:
        explanation: what its error code means, and what to do about it.
    """
    body = record.job
    meaning, what_to_do = explanation
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
    """Return the beginning of a file."""
    return BYTE_ORDER_MARK + csv_text([COLUMNS])


def csv_text(rows: Iterable[Sequence[object]], delimiter: str = ",") -> str:
    """Return rows as CSV whose texts no spreadsheet changes or takes for formulas."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\r\n")
    for each in rows:
        writer.writerow([protected(cell) if isinstance(cell, str) else cell for cell in each])
    return text.getvalue()


def protected(cell: str) -> str:
    """Return a text with an apostrophe wherever a spreadsheet would change or run it."""
    if _CHANGED.match(cell):
        cell = "'" + cell
    return _INNER.sub(r"\1'\2", cell)


def unprotected(cell: str) -> str:
    """Return the text of which `protected` made `cell`; other texts are returned unchanged."""
    if "'" not in cell:
        return cell
    cell = _PROTECTED_INNER.sub(r"\1\2", cell)
    return cell[1:] if cell.startswith("'") and _CHANGED.match(cell, 1) else cell


def json_lines(records: Iterable[JobRecord]) -> str:
    """Return jobs as JSON lines, each as `show --json` prints it."""
    return "".join(json.dumps(record.as_json()) + "\n" for record in records)
