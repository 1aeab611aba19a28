"""Failed jobs in pages. The time to read a page does not depend on its position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from ...schemas import State
from .cursor import Cursor
from .index_page import IdPage, JobPage, Selection, read_ids, read_jobs
from .job_filter import JobFilter, has_text, job_conditions
from .namespace import Namespace

#: Prefixes of the indexes of failed jobs by a field.
FAILED_BY = {"error_code": "failed:", "page_id": "failed_on:", "campaign": "failed_of:"}
#: Maximum number of entries that one page scans, without and with a search for a text.
SCAN_LIMIT, TEXT_SCAN_LIMIT = 20_000, 4000


def failed_page(
    namespace: Namespace, wanted: JobFilter, text: str, after: Cursor | None, limit: int
) -> JobPage:
    """Return at most `limit` matching failed jobs; see `Reader.failed_page`."""
    wanted = replace(wanted, states=(State.FAILED,))
    return read_jobs(
        namespace,
        partial(failed_ids, namespace, wanted),
        lambda record: wanted.fits(record) and has_text(record, text),
        after=after,
        limit=limit,
        scan_limit=TEXT_SCAN_LIMIT if text else SCAN_LIMIT,
    )


def failed_ids(
    namespace: Namespace,
    wanted: JobFilter,
    after: Cursor | None,
    *,
    limit: int,
    scan_limit: int,
    with_field: str = "",
) -> IdPage:
    """Return ids of matching failed jobs, the latest first, with one field of each if named."""
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
    """Return the shortest indexes that contain all matching jobs, with the remaining conditions.

    The time bounds of `wanted` are not included.
    """
    conditions = job_conditions(wanted, "error_code", "page_id", "campaign")
    if not conditions:
        return Selection(indexes=["failed"])
    indexes = {name: _indexes(name, values) for name, values in conditions.items()}
    if len(indexes) == 1:
        return Selection(indexes=next(iter(indexes.values())))
    shortest = min(indexes, key=lambda name: _size(namespace, indexes[name]))
    del conditions[shortest]
    return Selection(indexes=indexes[shortest], conditions=conditions)


def failed_indexes(wanted: JobFilter) -> list[str]:
    """Return indexes that together contain all matching failed jobs; by error code if it is set."""
    conditions = job_conditions(wanted, "error_code", "page_id", "campaign")
    return next((_indexes(*condition) for condition in conditions.items()), ["failed"])


def _indexes(field_name: str, values: Sequence[str]) -> list[str]:
    return [FAILED_BY[field_name] + value for value in values]


def _size(namespace: Namespace, indexes: Iterable[str]) -> int:
    pipeline = namespace.pipeline()
    for name in indexes:
        pipeline.zcard(namespace.key(name))
    return sum(pipeline.execute())
