"""Positions in lists of jobs by time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

from ...schemas import from_ms

_NUMBER = r"-?(?:inf|[0-9]{1,17}(?:\.[0-9]{1,17})?(?:e[+-][0-9]{1,3})?)"
_CURSOR = re.compile(f"({_NUMBER})-(.+)", re.DOTALL)


class Cursor(NamedTuple):
    """The position after an entry, even if the entry no longer exists."""

    #: Normally an integer. Another client may have written any number, including an infinite one.
    ms: float
    job_id: str

    def __str__(self) -> str:
        return f"{self.ms:.17g}-{self.job_id}"

    @property
    def time(self) -> datetime | None:
        """When the entry failed or is due; None if its time is not valid."""
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


class _Page(Protocol):
    @property
    def after(self) -> Cursor | None: ...


Page = TypeVar("Page", bound=_Page)


def iterate(read: Callable[[Cursor | None], Page]) -> Iterator[Page]:
    """Yield all pages. Each is read when the iteration reaches it."""
    after: Cursor | None = None
    while True:
        page = read(after)
        yield page
        if page.after is None:
            return
        after = page.after
