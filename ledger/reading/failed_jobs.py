"""Failed jobs in pages, each as quick to read as the first, however many have failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...schemas import JobRecord, State
from .cursor import Cursor
from .index_page import IdPage, Selection, read_ids
from .job_filter import JobFilter, has_text
from .namespace import Namespace

#: Entries that one page may scan, where it leaves some out; and if each job is read for a text.
SCAN_LIMIT, TEXT_SCAN_LIMIT = 20_000, 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs of a list.

    Attributes:
        after: where the next page begins; None if nothing follows.
        scanned: entries of the indexes that were scanned for this page.
    """

    records: list[JobRecord]
    after: Cursor | None
    scanned: int


def failed_page(
    namespace: Namespace, wanted: JobFilter, text: str, after: Cursor | None, limit: int
) -> JobPage:
    """Return at most `limit` failed jobs that fit; see `Reader.failed_page`."""
    wanted = replace(wanted, states=(State.FAILED,))
    found: list[JobRecord] = []
    scanned = 0
    scan_limit = TEXT_SCAN_LIMIT if text else SCAN_LIMIT
    while True:
        ids = failed_ids(
            namespace, wanted, after, limit=limit - len(found), scan_limit=scan_limit - scanned
        )
        scanned += ids.scanned
        found += (
            record
            for record in namespace.records(ids.ids)
            if wanted.fits(record) and has_text(record, text)
        )
        after = ids.after
        if after is None or len(found) >= limit or scanned >= scan_limit:
            return JobPage(records=found, after=after, scanned=scanned)


def failed_ids(
    namespace: Namespace,
    wanted: JobFilter,
    after: Cursor | None,
    *,
    limit: int,
    scan_limit: int,
    with_field: str = "",
) -> IdPage:
    """Return ids of failed jobs that fit, the latest first, and a field of each if named."""
    return read_ids(
        namespace,
        failed_selection(namespace, wanted),
        earliest_ms=wanted.since_ms,
        latest_ms=wanted.until_ms,
        after=after,
        limit=limit,
        scan_limit=scan_limit,
        with_field=with_field,
    )


def failed_selection(namespace: Namespace, wanted: JobFilter) -> Selection:
    """Return the shortest indexes that have every failed job that fits, and what to leave out.

    The time bounds of `wanted` are not part of it.
    """
    by_code, by_page = _code_indexes(wanted), _page_indexes(wanted)
    if not (by_code and by_page):
        return Selection(indexes=by_code or by_page or ["failed"])
    if _size(namespace, by_code) <= _size(namespace, by_page):
        return Selection(indexes=by_code, filtered_field="page_id", values=wanted.page_ids)
    return Selection(indexes=by_page, filtered_field="error_code", values=wanted.error_codes)


def failed_indexes(wanted: JobFilter) -> list[str]:
    """Return indexes that, merged, have every failed job that fits; by error code if it has any."""
    return _code_indexes(wanted) or _page_indexes(wanted) or ["failed"]


def _code_indexes(wanted: JobFilter) -> list[str]:
    return [f"failed:{error_code}" for error_code in wanted.error_codes]


def _page_indexes(wanted: JobFilter) -> list[str]:
    return [f"failed_on:{page_id}" for page_id in wanted.page_ids]


def _size(namespace: Namespace, indexes: Iterable[str]) -> int:
    pipeline = namespace.pipeline()
    for name in indexes:
        pipeline.zcard(namespace.key(name))
    return sum(pipeline.execute())
