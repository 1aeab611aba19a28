"""Which jobs are wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ...schemas import JobRecord, State, iso_utc

#: Values of one field of a filter: each is an index that a script merges.
MAX_VALUES = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs are wanted. Several values of one field mean any of them; none is no condition.

    `since` and `until` (aware, both included) bound when a job finished or, if it has not, when it
    was enqueued.

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
            # A repeated value is one value.
            values = tuple(dict.fromkeys(getattr(self, name)))
            if len(values) > MAX_VALUES:
                raise ValueError(f"{name} has {len(values)} values; at most {MAX_VALUES} can be")
            object.__setattr__(self, name, values)

    @property
    def is_empty(self) -> bool:
        """Whether every job is wanted."""
        return self == JobFilter()

    def as_json(self) -> dict[str, Any]:
        """Return the conditions as in JSON, without those that are not set."""
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
        """Return the filter of which `as_json` returned `facts`.

        Raises:
            ValueError, TypeError, AttributeError: it was not returned by `as_json`.
        """
        return cls(
            states=tuple(map(State, facts.get("state", ()))),
            error_codes=tuple(facts.get("error_code", ())),
            page_ids=tuple(facts.get("page_id", ())),
            campaigns=tuple(facts.get("campaign", ())),
            since=_time(facts.get("since")),
            until=_time(facts.get("until")),
        )

    @property
    def since_ms(self) -> int | None:
        """`since` as whole milliseconds since the epoch, as the times of jobs are; rounded up."""
        return None if self.since is None else -((_EPOCH - self.since) // _MILLISECOND)

    @property
    def until_ms(self) -> int | None:
        """`until` as whole milliseconds since the epoch; rounded down."""
        return None if self.until is None else (self.until - _EPOCH) // _MILLISECOND

    def fits(self, record: JobRecord) -> bool:
        """Return whether `record` is wanted."""
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
    # Python 3.10 does not read the `Z` of UTC yet.
    return None if text is None else datetime.fromisoformat(text.replace("Z", "+00:00"))


def job_conditions(wanted: JobFilter, *fields: str) -> dict[str, Sequence[str]]:
    """Return the conditions on some fields of a job's hash, without those that are not set."""
    values = {
        "error_code": wanted.error_codes,
        "page_id": wanted.page_ids,
        "campaign": wanted.campaigns,
    }
    return {name: values[name] for name in fields if values[name]}


def ended_or_enqueued_ms(record: JobRecord) -> int:
    """Return when the job finished or, if it has not, was enqueued (ms since the epoch)."""
    time = record.finished_at or record.enqueued_at
    return (time - _EPOCH) // _MILLISECOND if time else 0


def has_text(record: JobRecord, text: str) -> bool:
    """Return whether ids, error, payload, metadata or key contain `text`, ignoring case."""
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
