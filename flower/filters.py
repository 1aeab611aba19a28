"""The filter of the Failures page, parsed from its URL. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from urllib.parse import urlencode

from ..ledger import MAX_VALUES, JobFilter
from ..schemas import iso_utc

#: Durations to choose from, by their value in the URL, with their names.
DURATIONS = {
    "1h": (timedelta(hours=1), "Last hour"),
    "24h": (timedelta(hours=24), "Last 24 hours"),
    "7d": (timedelta(days=7), "Last 7 days"),
    "30d": (timedelta(days=30), "Last 30 days"),
}
#: Maximum length of a value in characters, above the longest error code or payload id.
_MAX_CHARACTERS = 300


class InvalidFilter(ValueError):
    """The URL has an invalid filter. The message names the invalid part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureFilter:
    """The fields of the Failures page's form.

    Attributes:
        error_codes, page_ids: matches any of these values; if empty, matches all.
        within: one of `DURATIONS`, counted back from now; "" for no limit.
        since, until: bounds (aware); they override `within`.
    """

    error_codes: tuple[str, ...] = ()
    page_ids: tuple[str, ...] = ()
    text: str = ""
    within: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def read(cls, arguments: Callable[[str], Sequence[str]]) -> FailureFilter:
        """Parse the filter of a request; `arguments` returns all values of a parameter.

        Raises:
            InvalidFilter: a value is invalid, there are too many, or `since` is after `until`.
        """

        def texts(name: str) -> tuple[str, ...]:
            values = (value.strip()[:_MAX_CHARACTERS] for value in arguments(name))
            unique = tuple(dict.fromkeys(value for value in values if value))
            if len(unique) > MAX_VALUES:
                raise InvalidFilter(
                    f"{name} has {len(unique)} values; at most {MAX_VALUES} are allowed."
                )
            return unique

        def text(name: str) -> str:
            values = texts(name)
            if len(values) > 1:
                raise InvalidFilter(f"{name} is given {len(values)} times; expected once.")
            return values[0] if values else ""

        within = text("within")
        if within and within not in DURATIONS:
            raise InvalidFilter(
                f"within={within} is not a valid duration; use one of {', '.join(DURATIONS)}."
            )
        since, until = read_time("since", text("since")), read_time("until", text("until"))
        if since and until and until < since:
            raise InvalidFilter("since is after until: no time is between them.")
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
        """Whether the filter matches every failure."""
        return self == FailureFilter()

    def as_fields(self) -> list[tuple[str, str]]:
        """Return the non-empty parameters as names and values, the inverse of `read`."""
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
        """Return the filter as a query string, with the parameters `more`."""
        return urlencode([*self.as_fields(), *((n, value) for n, value in more.items() if value)])

    def with_error_code(self, error_code: str) -> FailureFilter:
        """Return the filter restricted to an error code."""
        return replace(self, error_codes=(error_code,))

    def with_page_id(self, page_id: str) -> FailureFilter:
        """Return the filter restricted to a page."""
        return replace(self, page_ids=(page_id,))

    def between(self, since: datetime, until: datetime) -> FailureFilter:
        """Return the filter with other times."""
        return replace(self, within="", since=since, until=until)

    def as_of(self, now: datetime) -> JobFilter:
        """Return the ledger's filter without the text; durations count back from `now` (aware)."""
        since = now - DURATIONS[self.within][0] if self.within else self.since
        return JobFilter(
            error_codes=self.error_codes,
            page_ids=self.page_ids,
            since=since,
            until=self.until,
        )

    def description(self) -> str:
        """Return a description of the filter."""
        parts = []
        if self.error_codes:
            parts.append(f"with error code {any_of(self.error_codes)}")
        if self.page_ids:
            parts.append(f"on page {any_of(self.page_ids)}")
        if self.text:
            parts.append(f"with the text “{self.text}”")
        if self.within:
            parts.append(f"in the {DURATIONS[self.within][1].lower()}")
        if self.since:
            parts.append(f"from {_words(self.since)}")
        if self.until:
            parts.append(f"until {_words(self.until)}")
        return "all failures" if not parts else "failures " + ", ".join(parts)


def any_of(values: Sequence[str]) -> str:
    """Return the values as text: `a, b or c`."""
    *most, last = values
    return f"{', '.join(most)} or {last}" if most else last


def read_time(name: str, text: str) -> datetime | None:
    """Parse a time of a URL; return it as an aware datetime, or None for "".

    Raises:
        InvalidFilter: it is not a time.
    """
    if not text:
        return None
    try:
        # Python 3.10 does not parse the suffix `Z`.
        time = datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
        # Without JavaScript, the form labels its times as UTC.
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
