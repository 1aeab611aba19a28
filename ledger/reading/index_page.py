"""Pages of indexes by time. The time to read a page does not depend on its position."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ...schemas import JobRecord
from .cursor import Cursor
from .namespace import Namespace

#: Maximum number of entries that one script call scans: about 1 ms of the server's time.
_SCAN_LIMIT = 500
#: Number of merged indexes at that cost. With more indexes, a call scans fewer entries.
_FEW_INDEXES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The entries of one index, or of several merged indexes, whose jobs meet conditions.

    Attributes:
        indexes: names of the indexes; an id in several of them counts once.
        conditions: accepted values by field of the job's hash.
    """

    indexes: Sequence[str]
    conditions: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPage:
    """Some ids of a selection.

    Attributes:
        values: for each id, the value of the requested field of its job ("" if it has none).
        after: cursor of the last scanned entry; None at the end.
        scanned: number of scanned entries.
    """

    ids: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    after: Cursor | None = None
    scanned: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Some jobs of a list.

    Attributes:
        after: cursor of the next page; None at the end.
        scanned: number of entries of the indexes that were scanned for this page.
    """

    records: list[JobRecord]
    after: Cursor | None
    scanned: int


def read_ids(
    namespace: Namespace,
    selection: Selection,
    *,
    earliest_ms: int | None = None,
    latest_ms: int | None = None,
    after: Cursor | None = None,
    desc: bool = True,
    limit: int,
    scan_limit: int,
    with_field: str = "",
) -> IdPage:
    """Return at most `limit` ids, scanning at most `scan_limit` entries.

    Args:
        earliest_ms, latest_ms: inclusive bounds of an entry's time; None for no bound.
        desc: latest first; otherwise earliest first.
        with_field: a field of the job's hash to return with each id.
    """
    indexes = selection.indexes
    scanned_at_once = _SCAN_LIMIT * _FEW_INDEXES // max(_FEW_INDEXES, len(indexes))
    page = IdPage(after=after)
    while True:
        at_end, ms, job_id, scanned, *found = namespace.script(
            "index_page",
            "desc" if desc else "asc",
            "-inf" if earliest_ms is None else earliest_ms,
            "+inf" if latest_ms is None else latest_ms,
            f"{page.after.ms:.17g}" if page.after else "",
            page.after.job_id if page.after else "",
            limit - len(page.ids),
            min(scanned_at_once, scan_limit - page.scanned),
            with_field,
            json.dumps({name: list(values) for name, values in selection.conditions.items()}),
            len(indexes),
            *indexes,
        )
        page = IdPage(
            ids=page.ids + found[::2],
            values=page.values + found[1::2],
            after=None if at_end else Cursor(float(ms), job_id),
            scanned=page.scanned + scanned,
        )
        if at_end or len(page.ids) >= limit or page.scanned >= scan_limit:
            return page


def read_jobs(
    namespace: Namespace,
    read: Callable[..., IdPage],
    fits: Callable[[JobRecord], bool],
    *,
    after: Cursor | None,
    limit: int,
    scan_limit: int,
) -> JobPage:
    """Return at most `limit` jobs that fit. `read` returns their ids, as `read_ids` does."""
    found: list[JobRecord] = []
    scanned = 0
    while True:
        ids = read(after=after, limit=limit - len(found), scan_limit=scan_limit - scanned)
        scanned += ids.scanned
        found += filter(fits, namespace.records(ids.ids))
        after = ids.after
        if after is None or len(found) >= limit or scanned >= scan_limit:
            return JobPage(records=found, after=after, scanned=scanned)
