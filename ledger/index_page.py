"""Pages of an index of jobs by time, each as quick to read as the first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from ..schemas import from_ms
from .scripts import Scripts

#: Entries that one script call looks at: about 2 ms of the server's time.
_LOOK_AT = 2000

_NUMBER = r"-?(?:inf|[0-9]{1,17}(?:\.[0-9]{1,17})?(?:e[+-][0-9]{1,3})?)"
_PLACE = re.compile(f"({_NUMBER})-(.+)", re.DOTALL)


class Place(NamedTuple):
    """Where a page goes on: after this entry, whether or not it is still there."""

    #: Whole, but where other hands wrote it: any number of theirs, also an infinite one.
    ms: float
    job_id: str

    def __str__(self) -> str:
        return f"{self.ms:.17g}-{self.job_id}"

    @property
    def time(self) -> datetime | None:
        """When the entry failed, or is due; None where that is no time."""
        try:
            return from_ms(round(self.ms))
        except (ValueError, OverflowError, OSError):
            return None

    @classmethod
    def parse(cls, text: str) -> Place:
        """Return what `str` made a text of.

        Raises:
            ValueError: it is no such text.
        """
        parts = _PLACE.fullmatch(text)
        if parts is None:
            raise ValueError(f"{text!r} is no place in a list")
        return cls(float(parts[1]), parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class IdPage:
    """Ids of an index, the place after the last entry looked at (None: the end), and how many."""

    ids: list[str]
    after: Place | None
    looked_at: int


def read_ids(
    scripts: Scripts,
    indexes: Sequence[str],
    *,
    earliest_ms: float | str = "-inf",
    latest_ms: float | str = "+inf",
    after: Place | None = None,
    falling: bool = True,
    limit: int,
    budget: int,
) -> IdPage:
    """Return at most `limit` ids, looking at no more than `budget` entries.

    Args:
        indexes: one, or two that an id must be in both; the first is gone through.
        falling: the latest first; otherwise the earliest.
    """
    found: list[str] = []
    looked_at = 0
    while True:
        at_end, ms, job_id, looked, *ids = scripts(
            "index_page",
            indexes[0],
            indexes[1] if len(indexes) > 1 else "",
            "falling" if falling else "rising",
            earliest_ms,
            latest_ms,
            f"{after.ms:.17g}" if after else "",
            after.job_id if after else "",
            limit - len(found),
            min(_LOOK_AT, budget - looked_at),
        )
        found += ids
        looked_at += looked
        if at_end:
            return IdPage(ids=found, after=None, looked_at=looked_at)
        after = Place(float(ms), job_id)
        if len(found) >= limit or looked_at >= budget:
            return IdPage(ids=found, after=after, looked_at=looked_at)
