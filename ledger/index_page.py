"""Pages of indexes of jobs by time, each as quick to read as the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from ..schemas import from_ms
from .scripts import Scripts

#: Entries that one script call scans: about 1 ms of the server's time.
_SCAN_LIMIT = 500
#: Indexes merged at about that cost; with more of them, a call scans fewer entries.
_FEW_INDEXES = 20

_NUMBER = r"-?(?:inf|[0-9]{1,17}(?:\.[0-9]{1,17})?(?:e[+-][0-9]{1,3})?)"
_CURSOR = re.compile(f"({_NUMBER})-(.+)", re.DOTALL)


class Cursor(NamedTuple):
    """Where a page begins: after this entry, whether or not it still exists."""

    #: An integer; another client may have written any number, including an infinite one.
    ms: float
    job_id: str

    def __str__(self) -> str:
        return f"{self.ms:.17g}-{self.job_id}"

    @property
    def time(self) -> datetime | None:
        """When the entry failed, or is due; None if that is not a valid time."""
        try:
            return from_ms(round(self.ms))
        except (ValueError, OverflowError, OSError):
            return None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `str` formatted as `text`.

        Raises:
            ValueError: `text` is malformed.
        """
        parts = _CURSOR.fullmatch(text)
        if parts is None:
            raise ValueError(f"{text!r} is not a position in a list")
        return cls(float(parts[1]), parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The entries of one or several merged indexes whose job has one of some values in a field.

    Attributes:
        indexes: names of the indexes; an id in several of them counts once.
        filtered_field: a field of the job's hash; "" for no condition.
        values: what that field may contain.
    """

    indexes: Sequence[str]
    filtered_field: str = ""
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPage:
    """Some ids of a selection.

    Attributes:
        values: for each id, its job's value of the requested field ("" if it has none).
        after: cursor of the last scanned entry; None at the end.
        scanned: number of scanned entries.
    """

    ids: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)
    after: Cursor | None = None
    scanned: int = 0


def read_ids(
    scripts: Scripts,
    selection: Selection,
    *,
    earliest_ms: float | str = "-inf",
    latest_ms: float | str = "+inf",
    after: Cursor | None = None,
    desc: bool = True,
    limit: int,
    scan_limit: int,
    with_field: str = "",
) -> IdPage:
    """Return at most `limit` ids, scanning at most `scan_limit` entries.

    Args:
        desc: latest first; otherwise earliest first.
        with_field: a field of the job's hash to return beside each id.
    """
    indexes = selection.indexes
    scanned_at_once = _SCAN_LIMIT * _FEW_INDEXES // max(_FEW_INDEXES, len(indexes))
    page = IdPage(after=after)
    while True:
        at_end, ms, job_id, scanned, *found = scripts(
            "index_page",
            "desc" if desc else "asc",
            earliest_ms,
            latest_ms,
            f"{page.after.ms:.17g}" if page.after else "",
            page.after.job_id if page.after else "",
            limit - len(page.ids),
            min(scanned_at_once, scan_limit - page.scanned),
            with_field,
            selection.filtered_field,
            len(indexes),
            *indexes,
            *selection.values,
        )
        page = IdPage(
            ids=page.ids + found[::2],
            values=page.values + found[1::2],
            after=None if at_end else Cursor(float(ms), job_id),
            scanned=page.scanned + scanned,
        )
        if at_end or len(page.ids) >= limit or page.scanned >= scan_limit:
            return page
