"""`/failures/export.csv` and `.jsonl`: the failed jobs of a filter, streamed as they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated

from ...ledger import JobPage
from ...schemas import from_ms
from ...schemas.export import csv_header, csv_text, json_lines, row
from .handler import PageHandler

logger = logging.getLogger(__name__)


class ExportHandler(PageHandler):
    """The failed jobs of a filter, the latest first, as a file."""

    @authenticated
    async def get(self, kind: str) -> None:
        wanted = self.read_filter()
        reader = self.site.ledger.reader
        now = from_ms(await self.ask(reader.now_ms))
        self.set_header(
            "Content-Type",
            "text/csv; charset=utf-8" if kind == "csv" else "application/x-ndjson; charset=utf-8",
        )
        name = f"failures-{now:%Y%m%d-%H%M%S}.{kind}"
        self.set_header("Content-Disposition", f'attachment; filename="{name}"')
        pages = reader.failed_pages(wanted.as_of(now), text=wanted.text)
        first = await self.ask(_next, pages)
        if kind == "csv":
            self.write(csv_header())
        try:
            await self._write_all(kind, first, pages)
        except StreamClosedError:
            return  # The client has disconnected.
        except HTTPError as error:
            # A part was already sent. Closing the connection marks the file as incomplete.
            logger.warning(
                "an export was interrupted: %s", error, extra={"action": "export_failed"}
            )
            self.detach().close()

    async def _write_all(self, kind: str, page: JobPage | None, pages: Iterator[JobPage]) -> None:
        while page is not None:
            jobs = page.records
            rows = (row(job, self.language) for job in jobs)
            self.write(csv_text(rows) if kind == "csv" else json_lines(jobs))
            await self.flush()
            page = await self.ask(_next, pages)


def _next(pages: Iterator[JobPage]) -> JobPage | None:
    return next(pages, None)
