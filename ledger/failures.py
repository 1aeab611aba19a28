"""Failed jobs in pages, each as quick to read as the first, however many have failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..schemas import JobRecord, State
from .connection import translated_errors
from .failure_counts import SCAN_LIMIT, FailureCounts
from .index_page import Cursor
from .search import JobFilter
from .text_search import has_text

#: Jobs that one page may read, to find a text in them.
PAGE_READ = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePage:
    """Some failed jobs, the latest first.

    Attributes:
        after: where the next page begins; None if nothing follows.
        scanned: entries of the indexes that were scanned for this page.
    """

    records: list[JobRecord]
    after: Cursor | None
    scanned: int


class Failures(FailureCounts):
    """The failed jobs of one ledger. Every method raises `QueueUnavailable`.

    The `states` of a `JobFilter` are ignored. A `text` is searched for, ignoring case, in the job's
    ids, error, payload, metadata and idempotency key.
    """

    def page(
        self, wanted: JobFilter, *, text: str = "", after: Cursor | None = None, limit: int = 50
    ) -> FailurePage:
        """Return at most `limit` jobs that come after a place; fewer where many are left out."""
        found: list[JobRecord] = []
        scanned = 0
        scan_limit = PAGE_READ if text else SCAN_LIMIT
        with translated_errors(self._url):
            while True:
                ids = self._ids(
                    wanted, after, limit=limit - len(found), scan_limit=scan_limit - scanned
                )
                scanned += ids.scanned
                found += (
                    record
                    for record in self._search.records(ids.ids)
                    if record.state is State.FAILED and has_text(record, text)
                )
                after = ids.after
                if after is None or len(found) >= limit or scanned >= scan_limit:
                    return FailurePage(records=found, after=after, scanned=scanned)

    def each(self, wanted: JobFilter, *, text: str = "", chunk: int = 500) -> Iterator[FailurePage]:
        """Yield all that fit, page by page, each read when it is asked for.

        What fails meanwhile comes before the first page, and is not among them.
        """
        after: Cursor | None = None
        while True:
            page = self.page(wanted, text=text, after=after, limit=chunk)
            yield page
            if page.after is None:
                return
            after = page.after

    def each_ids(
        self, wanted: JobFilter, *, text: str = "", chunk: int = 500
    ) -> Iterator[list[str]]:
        """Yield the ids of all that fit, `chunk` at a time; without a text, no job is read."""
        if text:
            for page in self.each(wanted, text=text, chunk=chunk):
                yield [record.job_id for record in page.records]
            return
        with translated_errors(self._url):
            for ids in self._search.failed_pages(wanted, limit=chunk):
                yield ids.ids

    def each_with_error_code(self, wanted: JobFilter) -> Iterator[tuple[str, str]]:
        """Yield the id and error code of each that fits; nothing else of a job is read."""
        with translated_errors(self._url):
            for page in self._search.failed_pages(wanted, with_field="error_code"):
                yield from zip(page.ids, page.values, strict=True)
