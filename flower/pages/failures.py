"""`/failures`: failed jobs with filters, and counts by error code and page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tornado.web import authenticated

from ...ledger import ALL_PAGES, Counts, Cursor, JobFilter, JobPage, Ledger, Pause
from ...producer.bulk_replay import Cause, group_causes
from ...schemas import State, from_ms
from ..chart import MAX_SERIES, Bar, Series, bars_of, draw, edges_ms
from ..filters import DURATIONS, FailureFilter, any_of
from .handler import PAGE_SIZE, PageHandler

#: Maximum number of lines in the list of pages and in each list of error codes.
_TOP = 8
_TOP_OF_KIND = 5
#: Maximum number of jobs to read or names to count for each list: some ms in Redis.
_COUNT_LIMIT = 2000
_JOB_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The page's data for one filter, from the ledger."""

    now: datetime
    page: JobPage
    total: int | None
    by_error_code: Counts
    by_page_id: Counts
    series: Sequence[Series]
    edges: Sequence[int]
    totals: Sequence[int]
    states: dict[State, int]
    pauses: list[Pause]


class FailuresHandler(PageHandler):
    """The list of failures with the chart and the form."""

    @authenticated
    async def get(self) -> None:
        wanted = self.read_filter()
        if _JOB_ID.fullmatch(wanted.text) and await self._is_job(wanted.text):
            self.redirect(self.reverse_url("failure", wanted.text))
            return
        after = self.read_cursor()
        split_by = "page_id" if self.text_argument("by") == "page_id" else "error_code"
        seen = await self.ask(_read, self.site.ledger, wanted, after, split_by)
        bars = self._bars(wanted, seen)
        self.render(
            "failures.html",
            after=after,
            any_of=any_of,
            bars=bars,
            chart=draw(seen.series, bars),
            kinds=group_causes(
                [Cause(code, count) for code, count in seen.by_error_code.by_name.items()]
            ),
            filter=wanted,
            page_ends_at=seen.page.after.time if seen.page.after else None,
            running=await self.ask(self.site.replays.running),
            seen=seen,
            durations=DURATIONS,
            split_by=split_by,
            top=_TOP,
            top_of_kind=_TOP_OF_KIND,
        )

    async def _is_job(self, job_id: str) -> bool:
        return await self.ask(self.site.ledger.reader.get, job_id) is not None

    def _bars(self, wanted: FailureFilter, seen: Overview) -> list[Bar]:
        here = self.reverse_url("failures")
        addresses = [
            f"{here}?{wanted.between(from_ms(start), from_ms(end - 1)).as_query()}"
            for start, end in pairwise(seen.edges)
        ]
        return bars_of(seen.edges, seen.totals, addresses)


def _read(ledger: Ledger, wanted: FailureFilter, after: Cursor | None, split_by: str) -> Overview:
    reader = ledger.reader
    now = from_ms(reader.now_ms())
    job_filter = wanted.as_of(now)
    page = reader.failed_page(job_filter, text=wanted.text, after=after, limit=PAGE_SIZE)
    by_error_code = reader.count_by_error_code(job_filter, limit=_COUNT_LIMIT)
    by_page_id = reader.count_by_page(job_filter, limit=_COUNT_LIMIT)
    names = (by_page_id if split_by == "page_id" else by_error_code).by_name
    edges = _edges(ledger, job_filter, now)
    series, totals = _series(ledger, job_filter, split_by, list(names), edges)
    return Overview(
        now=now,
        page=page,
        total=None if wanted.text else reader.count_failed(job_filter),
        by_error_code=by_error_code,
        by_page_id=by_page_id,
        series=series,
        edges=edges,
        totals=totals,
        states=reader.count_states(),
        # The page has a banner for the pause of all pages.
        pauses=[pause for pause in reader.pauses() if pause.page_id != ALL_PAGES],
    )


def _edges(ledger: Ledger, wanted: JobFilter, now: datetime) -> list[int]:
    """Return the chart's edges: from the filter's times, else from the oldest failure."""
    latest = min(wanted.until or now, now)
    earliest_ms = _ms(wanted.since) if wanted.since else ledger.reader.oldest_failed_ms(wanted)
    if earliest_ms is None or earliest_ms > _ms(latest):
        return []
    edges = edges_ms(earliest_ms, _ms(latest))
    # Failures outside the filter's times are not counted.
    return [max(edges[0], earliest_ms), *edges[1:-1], min(edges[-1], _ms(latest) + 1)]


def _series(
    ledger: Ledger, wanted: JobFilter, split_by: str, names: list[str], edges: Sequence[int]
) -> tuple[list[Series], list[int]]:
    """Return the series of the chart, and each bar's total.

    An index counts by error code or by page, not by both. If the filter has both, the chart counts
    the error codes on any page, and a note explains it. If it has one of them, the chart uses that.
    """
    if not edges:
        return [], []
    filtered = wanted.error_codes or wanted.page_ids
    if filtered:
        split_by, names = "error_code" if wanted.error_codes else "page_id", list(filtered)
    names = names[:MAX_SERIES]
    each = [
        JobFilter(page_ids=(name,)) if split_by == "page_id" else JobFilter(error_codes=(name,))
        for name in names
    ]
    *counts, totals = ledger.reader.count_over_time([*each, wanted], edges)
    series = [Series(name=n, counts=c) for n, c in zip(names, counts, strict=True)]
    rest = [max(0, total - sum(c[i] for c in counts)) for i, total in enumerate(totals)]
    if any(rest):
        series.append(Series(name="others", counts=rest, is_rest=True))
    return series, totals


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
