"""The filter of the Failures page, as read from a page's address. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from ..ledger import MAX_VALUES, JobFilter
from ..schemas import iso_utc

#: Spans to choose from, as they stand in the address, with their names.
SPANS = {
    "1h": (timedelta(hours=1), "Last hour"),
    "24h": (timedelta(hours=24), "Last 24 hours"),
    "7d": (timedelta(days=7), "Last 7 days"),
    "30d": (timedelta(days=30), "Last 30 days"),
}
#: Characters of a value that are read: more than the longest error code or payload id.
_MAX_CHARACTERS = 300


class InvalidFilter(ValueError):
    """A page's address has an invalid filter; the message says which part is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilter:
    """The fields of the form of the Failures page.

    Attributes:
        error_codes, page_ids: any of these values; none is no condition.
        within: one of `SPANS`, counted back from now; "" for no such bound.
        since, until: bounds (aware); where given, `within` does not count.
    """

    error_codes: tuple[str, ...] = ()
    page_ids: tuple[str, ...] = ()
    text: str = ""
    within: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def read(cls, arguments: Callable[[str], Sequence[str]]) -> FailureFilter:
        """Return the filter of a request; `arguments` returns all values of a parameter.

        Raises:
            InvalidFilter: a value cannot be read, there are too many, or the times are reversed.
        """

        def texts(name: str) -> tuple[str, ...]:
            values = (value.strip()[:_MAX_CHARACTERS] for value in arguments(name))
            unique = tuple(dict.fromkeys(value for value in values if value))
            if len(unique) > MAX_VALUES:
                raise InvalidFilter(
                    f"{name} has {len(unique)} values; at most {MAX_VALUES} can be."
                )
            return unique

        def text(name: str) -> str:
            values = texts(name)
            if len(values) > 1:
                raise InvalidFilter(f"{name} is given {len(values)} times; once is expected.")
            return values[0] if values else ""

        within = text("within")
        if within and within not in SPANS:
            raise InvalidFilter(
                f"within={within} is not a time span; use one of {', '.join(SPANS)}."
            )
        since, until = read_time("since", text("since")), read_time("until", text("until"))
        if since and until and until < since:
            raise InvalidFilter("The filter ends before it begins: until is before since.")
        return cls(
            error_codes=texts("error_code"),
            page_ids=texts("page_id"),
            text=text("text"),
            within="" if since or until else within,
            since=since,
            until=until,
        )

    @property
    def is_empty(self) -> bool:
        """Whether every failure is wanted."""
        return self == FailureFilter()

    def as_fields(self) -> list[tuple[str, str]]:
        """Return what `read` reads as names and values, without what is empty."""
        fields = [
            *(("error_code", error_code) for error_code in self.error_codes),
            *(("page_id", page_id) for page_id in self.page_ids),
            ("text", self.text),
            ("within", self.within),
            ("since", iso_utc(self.since)),
            ("until", iso_utc(self.until)),
        ]
        return [(name, value) for name, value in fields if value]

    def as_query(self, **more: str) -> str:
        """Return the filter as the part of an address after `?`, with `more` beside it."""
        return urlencode([*self.as_fields(), *((n, value) for n, value in more.items() if value)])

    def with_error_code(self, error_code: str) -> FailureFilter:
        """Return the filter narrowed to an error code."""
        return replace(self, error_codes=(error_code,))

    def with_page_id(self, page_id: str) -> FailureFilter:
        """Return the filter narrowed to a page."""
        return replace(self, page_ids=(page_id,))

    def between(self, since: datetime, until: datetime) -> FailureFilter:
        """Return the filter with other times."""
        return replace(self, within="", since=since, until=until)

    def as_of(self, now: datetime) -> JobFilter:
        """Return the ledger's filter, its text left out, spans counted back from `now` (aware)."""
        since = now - SPANS[self.within][0] if self.within else self.since
        return JobFilter(
            error_codes=self.error_codes,
            page_ids=self.page_ids,
            since=since,
            until=self.until,
        )

    def in_words(self) -> str:
        """Return the filter in words."""
        parts = []
        if self.error_codes:
            parts.append(f"with error code {any_of(self.error_codes)}")
        if self.page_ids:
            parts.append(f"on page {any_of(self.page_ids)}")
        if self.text:
            parts.append(f"with the text “{self.text}”")
        if self.within:
            parts.append(f"in the {SPANS[self.within][1].lower()}")
        if self.since:
            parts.append(f"from {_words(self.since)}")
        if self.until:
            parts.append(f"until {_words(self.until)}")
        return "all failures" if not parts else "failures " + ", ".join(parts)


def any_of(values: Sequence[str]) -> str:
    """Return alternatives in words: `a, b or c`."""
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last


def read_time(name: str, text: str) -> datetime | None:
    """Return a time of a page's address (aware); None for "".

    Raises:
        InvalidFilter: it is not a time.
    """
    if not text:
        return None
    try:
        # Python 3.10 does not yet read the `Z` of UTC.
        time = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
        # A browser without scripts sends what was typed; the form says that it is UTC.
        time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
        time.timestamp()
        if not 1990 < time.year < 9000:
            raise OverflowError
    except (ValueError, OverflowError):
        raise InvalidFilter(
            f"{name}={text} is not a time; expected one such as 2026-01-31T09:30Z."
        ) from None
    return time.astimezone(timezone.utc)


def _words(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
