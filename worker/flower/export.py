"""`/failures/export.csv` and `.jsonl`: a whole filter, written as it is read, however much."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from ...ledger import FailurePage
from ...schemas import JobRecord, from_ms, iso_utc
from .page import Page

_COLUMNS = (
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

logger = logging.getLogger(__name__)


class Export(Page):
    """The failed jobs of a filter, the latest first, as a file."""

    @authenticated
    async def get(self, kind: str) -> None:
        wanted = self.read_filter()
        failures = self.site.ledger.failures
        now = from_ms(await self.ask(failures.now_ms))
        self.set_header(
            "Content-Type",
            "text/csv; charset=utf-8" if kind == "csv" else "application/x-ndjson; charset=utf-8",
        )
        name = f"failures-{now:%Y%m%d-%H%M%S}.{kind}"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        pages = failures.each(wanted.as_of(now), text=wanted.text)
        first = await self.ask(_next, pages)
        if kind == "csv":
            self.write(csv_text([_COLUMNS]))
        try:
            await self._write_all(kind, first, pages)
        except StreamClosedError:
            return  # the reader has gone
        except HTTPError as error:
            # Some of it is out: a connection cut short says that this is not the whole.
            logger.warning("an export broke off: %s", error, extra={"action": "export_failed"})
            self.detach().close()

    async def _write_all(
        self, kind: str, page: FailurePage | None, pages: Iterator[FailurePage]
    ) -> None:
        while page is not None:
            self.write(csv_text(map(row, page.records)) if kind == "csv" else lines(page))
            await self.flush()
            page = await self.ask(_next, pages)


def _next(pages: Iterator[FailurePage]) -> FailurePage | None:
    return next(pages, None)


def lines(page: FailurePage) -> str:
    """Return the jobs as JSON lines, each as `show --json` prints it."""
    return "".join(json.dumps(record.as_json()) + "\n" for record in page.records)


def row(record: JobRecord) -> list[object]:
    """Return a job as a row of the CSV."""
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


def _harmless(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(_FORMULA_BEGINS):
        return "'" + cell
    return cell
