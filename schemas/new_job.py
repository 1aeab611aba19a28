"""Validate a new job: the body, and the keyword options of `enqueue`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from .errors import InvalidJob
from .job import Checked, MessageBody, SendJob, by_field_path, parse_send_job
from .states import Delivery

MAX_IDEMPOTENCY_KEY_CHARACTERS = 200
#: The pattern of a campaign's name.
_CAMPAIGN_NAME = re.compile("[A-Za-z0-9._-]{1,64}")
#: How far ahead a job may be scheduled or expire. A later time is most likely a mistake in units.
MAX_AHEAD = timedelta(days=366)


class MessageRow(MessageBody, total=False):
    """A row of `enqueue_many`: the body of the API's request, and options."""

    idempotency_key: str | None
    send_at: datetime | str | None
    expires_at: datetime | str | None
    delivery: Literal["at_least_once", "at_most_once"]
    urgent: bool
    campaign: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A validated job, not yet stored. Times are milliseconds since the epoch."""

    job: SendJob
    idempotency_key: str | None = None
    send_at_ms: int | None = None
    expires_at_ms: int | None = None
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    urgent: bool = False
    campaign: str | None = None


def with_default_key(new: NewJob) -> NewJob:
    """Add an idempotency key to a campaign's job that has none.

    With this key, a campaign sends a payload to a person only once.
    """
    if new.campaign is None or new.idempotency_key is not None:
        return new
    job = new.job
    return replace(
        new,
        idempotency_key=default_key(new.campaign, job.page_id, job.recipient_id, job.payload_id),
    )


def default_key(*parts: str | None) -> str:
    """Return the idempotency key made of campaign, page_id, recipient_id and payload_id."""
    return "/".join(part or "" for part in parts)


class _Time(fields.Field[int]):
    """An aware datetime, or ISO 8601 text with an offset. Deserializes to milliseconds."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if isinstance(value, str):
            try:
                # Python 3.10 does not parse the suffix `Z`.
                value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
            except ValueError:
                raise ValidationError(
                    "Must be a time in ISO 8601, such as 2026-01-31T09:30:00+07:00."
                ) from None
        if not isinstance(value, datetime):
            raise ValidationError("Must be a datetime with a time zone.")
        if value.utcoffset() is None:
            raise ValidationError("Has no time zone; add one, such as +07:00 or Z.")
        if value - datetime.now(timezone.utc) > MAX_AHEAD:
            raise ValidationError(f"Is more than {MAX_AHEAD.days} days ahead.")
        if value.year < 2000:
            raise ValidationError("Is before the year 2000.")
        return round(value.timestamp() * 1000)


def _key_fault(value: object) -> str | None:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        return "Must be a string of printable characters, not blank."
    if len(value) > MAX_IDEMPOTENCY_KEY_CHARACTERS:
        return f"Must have at most {MAX_IDEMPOTENCY_KEY_CHARACTERS} characters; has {len(value)}."
    return None


def campaign_name_fault(value: object) -> str | None:
    """Return the error of a campaign's name, or None if it is valid."""
    if isinstance(value, str) and _CAMPAIGN_NAME.fullmatch(value):
        return None
    return "Must be 1 to 64 of the characters A-Z a-z 0-9 . _ -"


class _OptionsSchema(Schema):
    class Meta:
        unknown = RAISE

    idempotency_key = Checked(_key_fault, allow_none=True)
    send_at = _Time(allow_none=True)
    expires_at = _Time(allow_none=True)
    delivery = fields.String(
        validate=validate.OneOf(
            [delivery.value for delivery in Delivery],
            error="Must be 'at_least_once' or 'at_most_once'.",
        )
    )
    urgent = fields.Boolean()
    campaign = Checked(campaign_name_fault, allow_none=True)


_MISPLACED = "Is an option of enqueue, not a field of the body: pass it as an argument."
#: The names of the options that a row of `enqueue_many` may have.
OPTION_NAMES = frozenset(_OptionsSchema().fields)
_OPTIONS = _OptionsSchema()
_FIELDS = _OPTIONS.fields


def parse_new_job(body: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> NewJob:
    """Validate the API's `body` and the keyword `options` of `enqueue`, and return the job.

    Raises:
        InvalidJob: with the errors of body and options by field path.
    """
    errors: dict[str, list[str]] = {}
    job: SendJob | None = None
    try:
        job = parse_send_job(body)
    except InvalidJob as error:
        errors |= {
            path: [_MISPLACED] if path in OPTION_NAMES else texts
            for path, texts in error.errors.items()
        }
    if not options:
        if job is None:
            raise InvalidJob(errors)
        return NewJob(job=job)
    loaded: dict[str, Any] = {}
    try:
        try:
            # To load only the given options is much faster than to load the whole schema.
            loaded = {name: _FIELDS[name].deserialize(value) for name, value in options.items()}
        except (KeyError, ValidationError):
            loaded = _OPTIONS.load(options)
    except ValidationError as error:
        errors |= by_field_path(error.messages_dict)
    send_at, expires_at = loaded.get("send_at"), loaded.get("expires_at")
    if send_at is not None and expires_at is not None and expires_at <= send_at:
        errors["expires_at"] = ["Must be after send_at."]
    if loaded.get("urgent") and loaded.get("campaign") is not None:
        errors["urgent"] = ["A job of a campaign cannot be urgent: leave out one of the two."]
    if job is None or errors:
        raise InvalidJob(errors)
    return NewJob(
        job=job,
        idempotency_key=loaded.get("idempotency_key"),
        send_at_ms=send_at,
        expires_at_ms=expires_at,
        delivery=Delivery(loaded.get("delivery", Delivery.AT_LEAST_ONCE)),
        urgent=loaded.get("urgent", False),
        campaign=loaded.get("campaign"),
    )


def parse_row(row: Any) -> NewJob:
    """Validate a row of `enqueue_many`, and return the job.

    Raises:
        InvalidJob: as `parse_new_job`.
    """
    if not isinstance(row, Mapping):
        return parse_new_job(row)  # raises: it must be an object
    if OPTION_NAMES.isdisjoint(row):
        return parse_new_job(row)
    body = {name: value for name, value in row.items() if name not in OPTION_NAMES}
    return parse_new_job(body, {name: row[name] for name in OPTION_NAMES & row.keys()})
