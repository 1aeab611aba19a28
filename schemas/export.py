"""Jobs as the rows of a CSV file, and as JSON lines: what every export of failed jobs holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from .record import JobRecord, iso_utc

COLUMNS = (
    "job_id",
    "failed_at",
    "error_code",
    "error_message",
    "http_status",
    "attempts",
    "page_id",
    "recipient_id",
    "payload_id",
    "metadata",
    "idempotency_key",
    "enqueued_at",
)
#: What a spreadsheet may take for the beginning of a formula.
_FORMULA_BEGINS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")


def row(record: JobRecord) -> list[object]:
    """Return a job as a row of the CSV, in the order of `COLUMNS`."""
    body = record.job
    return [
        record.job_id,
        iso_utc(record.finished_at),
        record.error_code,
        record.error_message,
        record.http_status,
        record.attempt_count,
        record.page_id,
        body["recipient"]["id"],
        body["message"]["payload_id"],
        body.get("metadata"),
        record.idempotency_key,
        iso_utc(record.enqueued_at),
    ]


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV, in which no cell is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for each in rows:
        writer.writerow([_harmless(cell) for cell in each])
    return text.getvalue()


def json_lines(records: Iterable[JobRecord]) -> str:
    """Return jobs as JSON lines, each as `show --json` prints it."""
    return "".join(json.dumps(record.as_json()) + "\n" for record in records)


def _harmless(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(_FORMULA_BEGINS):
        return "'" + cell
    return cell
