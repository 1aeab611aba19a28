"""Failed jobs in pages, each as quick to read as the first, however many have failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..schemas import JobRecord, State
from .connection import translated_errors
from .failure_counts import LOOK_AT, FailureCounts
from .index_page import Place
from .search import JobFilter
from .text_search import has_text

#: Jobs that one page may read, to find a text in them.
PAGE_READ = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePage:
    """Some failed jobs, the latest first.

    Attributes:
        after: where the next page goes on; None if nothing comes.
        looked_at: entries of the index looked at for this page.
    """

    records: list[JobRecord]
    after: Place | None
    looked_at: int


class Failures(FailureCounts):
    """The failed jobs of one ledger. Every method raises `QueueUnavailable`.

    Of a `JobFilter`, `state` is taken for `failed`. A `text` is looked for, whatever its case, in
    the job's ids, error, payload, metadata and idempotency key.
    """

    def page(
        self, wanted: JobFilter, *, text: str = "", after: Place | None = None, limit: int = 50
    ) -> FailurePage:
        """Return at most `limit` jobs that come after a place; fewer where many are left out."""
        found: list[JobRecord] = []
        looked_at = 0
        budget = PAGE_READ if text else LOOK_AT
        with translated_errors(self._url):
            while True:
                ids = self._ids(wanted, after, limit=limit - len(found), budget=budget - looked_at)
                looked_at += ids.looked_at
                found += (
                    record
                    for record in self._search.records(ids.ids)
                    if record.state is State.FAILED and has_text(record, text)
                )
                after = ids.after
                if after is None or len(found) >= limit or looked_at >= budget:
                    return FailurePage(records=found, after=after, looked_at=looked_at)

    def each(self, wanted: JobFilter, *, text: str = "", chunk: int = 500) -> Iterator[FailurePage]:
        """Yield all that fit, page by page, each read when it is asked for.

        What fails meanwhile comes before the first page, and is not among them.
        """
        after: Place | None = None
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
        after: Place | None = None
        while True:
            with translated_errors(self._url):
                ids = self._ids(wanted, after, limit=chunk, budget=LOOK_AT)
            yield ids.ids
            if ids.after is None:
                return
            after = ids.after
