"""The body of the API's "Payload Id" request, version 1.0, and its schema.

{"messaging_type": "harasocial_facebook_payload_id",      fixed; may be left out
 "recipient": {"id": "2560816460648749"},                 PSID: a string of digits
 "message": {"payload_id": "__hrf_f_…"},                  from Harasocial's setup content
 "page_id": "500725830264749",                            a string of digits
 "metadata": "order 1001"}                                optional, at most 500 characters
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from .errors import InvalidJob

MESSAGING_TYPE: Final = "harasocial_facebook_payload_id"

#: Characters of a page id or PSID. Facebook's have 15 to 17 digits; twice that is room to grow.
MAX_ID_CHARACTERS = 32
#: Characters of a payload id. The documented example has 66.
MAX_PAYLOAD_ID_CHARACTERS = 256
#: Characters (Unicode code points, not bytes) of metadata: the API page's limit.
MAX_METADATA_CHARACTERS = 500


class Recipient(TypedDict):
    """The person that a message goes to."""

    id: str


class MessageContent(TypedDict):
    """What is sent."""

    payload_id: str


class _RequiredFields(TypedDict):
    recipient: Recipient
    message: MessageContent
    page_id: str


class MessageBody(_RequiredFields, total=False):
    """The body of the API's request, for type checkers and editors."""

    messaging_type: Literal["harasocial_facebook_payload_id"]
    metadata: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SendJob:
    """One message to one person: the validated body of one POST."""

    page_id: str
    recipient_id: str
    payload_id: str
    metadata: str | None = None

    def body(self) -> MessageBody:
        """Return the JSON object to POST, its fields in the order of the API page."""
        body: MessageBody = {
            "messaging_type": MESSAGING_TYPE,
            "recipient": {"id": self.recipient_id},
            "message": {"payload_id": self.payload_id},
            "page_id": self.page_id,
        }
        if self.metadata is not None:
            body["metadata"] = self.metadata
        return body


class _Digits(fields.Field[str]):
    """A string of digits. A number is refused: ids exceed what JSON numbers keep in JavaScript."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            raise ValidationError("Is a number. Quote it: ids are strings of digits.")
        if not isinstance(value, str):
            raise ValidationError("Must be a string of digits.")
        if not value.strip():
            raise ValidationError("Must not be blank.")
        if len(value) > MAX_ID_CHARACTERS:
            raise ValidationError(f"Must have at most {MAX_ID_CHARACTERS} digits.")
        if not (value.isascii() and value.isdigit()):
            raise ValidationError("Must be a string of digits, nothing else.")
        return value


class _Text(fields.Field[str]):
    """A string that is not blank, not too long, and can be written as UTF-8."""

    def __init__(self, *, max_characters: int, control_allowed: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_characters = max_characters
        self.control_allowed = control_allowed

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError("Must be a string.")
        if len(value) > self.max_characters:
            raise ValidationError(
                f"Must have at most {self.max_characters} characters; has {len(value)}."
            )
        if not value.strip():
            raise ValidationError("Must not be blank.")
        # ASCII that prints is the common case by far, and quick to tell.
        if value.isascii() and value.isprintable():
            return value
        categories = {unicodedata.category(character) for character in value}
        if "Cs" in categories:
            raise ValidationError("Must be valid Unicode: it has half of a surrogate pair.")
        if "Cc" in categories and not self.control_allowed:
            raise ValidationError("Must not have control characters.")
        return value


class _StrictSchema(Schema):
    class Meta:
        unknown = RAISE

    error_messages = {  # noqa: RUF012 - marshmallow declares it as an instance attribute
        "unknown": "Is not a field of the API.",
        "type": "Must be an object.",
    }


class _RecipientSchema(_StrictSchema):
    id = _Digits(required=True)


class _MessageSchema(_StrictSchema):
    payload_id = _Text(
        required=True, max_characters=MAX_PAYLOAD_ID_CHARACTERS, control_allowed=False
    )


class SendJobSchema(_StrictSchema):
    """The documented body, and nothing else."""

    messaging_type = fields.String(
        validate=validate.Equal(MESSAGING_TYPE, error=f"Must be {MESSAGING_TYPE!r}, or left out.")
    )
    recipient = fields.Nested(_RecipientSchema, required=True)
    message = fields.Nested(_MessageSchema, required=True)
    page_id = _Digits(required=True)
    metadata = _Text(max_characters=MAX_METADATA_CHARACTERS, control_allowed=True)


_SCHEMA = SendJobSchema()


def parse_send_job(body: Mapping[str, Any]) -> SendJob:
    """Return the job that `body`, the API's own JSON object, stands for.

    Raises:
        InvalidJob: with what is wrong by field path, such as `recipient.id` (design promise 10).
    """
    if not isinstance(body, Mapping):
        raise InvalidJob({"job": ["Must be an object (a dict): the body of the API's request."]})
    try:
        loaded = _SCHEMA.load(body)
    except ValidationError as error:
        raise InvalidJob(by_field_path(error.messages_dict)) from None
    return SendJob(
        page_id=loaded["page_id"],
        recipient_id=loaded["recipient"]["id"],
        payload_id=loaded["message"]["payload_id"],
        metadata=loaded.get("metadata"),
    )


def by_field_path(messages: Mapping[Any, Any], path: str = "") -> dict[str, list[str]]:
    """Return marshmallow's nested messages by field path, such as `recipient.id`."""
    flat: dict[str, list[str]] = {}
    for name, value in messages.items():
        # "_schema" is marshmallow's word for "the object itself".
        here = path if name == "_schema" else f"{path}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            flat |= by_field_path(value, here)
        else:
            flat[_shortened(here) or "job"] = [str(text) for text in value]
    return flat


def _shortened(path: str, limit: int = 100) -> str:
    """Keep a hostile field name from flooding an error message."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in path)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
