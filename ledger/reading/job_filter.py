"""A filter of jobs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ...schemas import JobRecord, State, iso_utc

#: Maximum number of values of one field: each value is an index that a script merges.
MAX_VALUES = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """A filter of jobs. A field with several values matches any of them; without values, all jobs.

    `since` and `until` (aware, inclusive) bound when a job ended or, if it has not, when it was
    enqueued.

    Raises:
        ValueError: `since` or `until` has no time zone, `since` is after `until`, or a field has
            more than `MAX_VALUES` values.
    """

    states: tuple[State, ...] = ()
    error_codes: tuple[str, ...] = ()
    page_ids: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        for name, time in (("since", self.since), ("until", self.until)):
            if time is not None and time.utcoffset() is None:
                raise ValueError(f"{name} has no time zone: {time}; pass an aware datetime")
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(
                f"since ({self.since}) is after until ({self.until}): no time is between them"
            )
        for name in ("states", "error_codes", "page_ids", "campaigns"):
            # A repeated value counts once.
            values = tuple(dict.fromkeys(getattr(self, name)))
            if len(values) > MAX_VALUES:
                raise ValueError(f"{name} has {len(values)} values; at most {MAX_VALUES} can be")
            object.__setattr__(self, name, values)

    @property
    def is_empty(self) -> bool:
        """Whether all jobs match."""
        return self == JobFilter()

    def as_json(self) -> dict[str, Any]:
        """Return the conditions that are set, as a JSON object."""
        facts: dict[str, Any] = {
            "state": [state.value for state in self.states],
            "error_code": list(self.error_codes),
            "page_id": list(self.page_ids),
            "campaign": list(self.campaigns),
            "since": iso_utc(self.since),
            "until": iso_utc(self.until),
        }
        return {name: value for name, value in facts.items() if value}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> JobFilter:
        """Return the filter that `as_json` converted to `facts`.

        Raises:
            ValueError, TypeError, AttributeError: `facts` was not returned by `as_json`.
        """
        return cls(
            states=tuple(map(State, facts.get("state", ()))),
            error_codes=tuple(facts.get("error_code", ())),
            page_ids=tuple(facts.get("page_id", ())),
            campaigns=tuple(facts.get("campaign", ())),
            since=_time(facts.get("since")),
            until=_time(facts.get("until")),
        )

    def until_now(self, now: datetime) -> JobFilter:
        """Return the filter without jobs that end, or are enqueued, after `now`."""
        until = min(self.until or now, now)
        if self.since is not None:
            # A filter that starts in the future matches nothing; its range must stay valid.
            until = max(until, self.since)
        return replace(self, until=until)

    @property
    def since_ms(self) -> int | None:
        """`since` in whole milliseconds since the epoch, rounded up."""
        return None if self.since is None else -((_EPOCH - self.since) // _MILLISECOND)

    @property
    def until_ms(self) -> int | None:
        """`until` in whole milliseconds since the epoch, rounded down."""
        return None if self.until is None else (self.until - _EPOCH) // _MILLISECOND

    def fits(self, record: JobRecord) -> bool:
        """Return whether `record` matches."""
        when = ended_or_enqueued_ms(record)
        since, until = self.since_ms, self.until_ms
        return (
            (not self.states or record.state in self.states)
            and (not self.error_codes or record.error_code in self.error_codes)
            and (not self.page_ids or record.page_id in self.page_ids)
            and (not self.campaigns or record.campaign in self.campaigns)
            and (since is None or when >= since)
            and (until is None or when <= until)
        )


def _time(text: str | None) -> datetime | None:
    # Python 3.10 does not parse the suffix `Z`.
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def job_conditions(wanted: JobFilter, *fields: str) -> dict[str, Sequence[str]]:
    """Return the conditions that are set on some fields of a job's hash."""
    values = {
        "error_code": wanted.error_codes,
        "page_id": wanted.page_ids,
        "campaign": wanted.campaigns,
    }
    return {name: values[name] for name in fields if values[name]}


def ended_or_enqueued_ms(record: JobRecord) -> int:
    """Return when the job ended or, if it has not, was enqueued (ms since the epoch)."""
    time = record.finished_at or record.enqueued_at
    return (time - _EPOCH) // _MILLISECOND if time else 0


def has_text(record: JobRecord, text: str) -> bool:
    """Return whether an id, error, payload, metadata or key contains `text`, ignoring case."""
    if not text:
        return True
    wanted = text.casefold()
    body = record.job
    places = (
        record.job_id,
        record.page_id,
        record.error_code,
        record.error_message,
        record.idempotency_key,
        body["recipient"]["id"],
        body["message"]["payload_id"],
        body.get("metadata"),
    )
    return any(wanted in place.casefold() for place in places if place)
