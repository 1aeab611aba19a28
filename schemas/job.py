"""The body of the API's "Payload Id" request, version 1.0, and its validation.

{"messaging_type": "harasocial_facebook_payload_id",      fixed; may be left out
 "recipient": {"id": "2560816460648749"},                 PSID: a string of digits
 "message": {"payload_id": "__hrf_f_…"},                  from Harasocial's setup content
 "page_id": "500725830264749",                            a string of digits
 "metadata": "order 1001"}                                optional, at most 500 characters
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict, cast

from marshmallow import RAISE, Schema, ValidationError, fields

from .errors import InvalidJob

MESSAGING_TYPE: Final = "harasocial_facebook_payload_id"

#: Maximum digits of a page id or PSID. Facebook's have 15 to 17 today.
MAX_ID_CHARACTERS = 32
#: Maximum characters of a payload id. The documented example has 66.
MAX_PAYLOAD_ID_CHARACTERS = 256
#: Maximum characters (Unicode code points, not bytes) of metadata, from the API page.
MAX_METADATA_CHARACTERS = 500


class Recipient(TypedDict):
    """The person that a message goes to."""

    id: str


class MessageContent(TypedDict):
    """The content of the message."""

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
    """One message to one person: the validated body of a request."""

    page_id: str
    recipient_id: str
    payload_id: str
    metadata: str | None = None

    def body(self) -> MessageBody:
        """Return the JSON object to POST, with its fields in the order of the API page."""
        body: MessageBody = {
            "messaging_type": MESSAGING_TYPE,
            "recipient": {"id": self.recipient_id},
            "message": {"payload_id": self.payload_id},
            "page_id": self.page_id,
        }
        if self.metadata is not None:
            body["metadata"] = self.metadata
        return body


# Each function returns the error of a field's value, or None if the value is valid. Both the schema
# and `_plain_job` call them.


def _messaging_type_fault(value: object) -> str | None:
    if isinstance(value, str) and value == MESSAGING_TYPE:
        return None
    return f"Must be {MESSAGING_TYPE!r}, or left out."


def id_fault(value: object) -> str | None:
    """Return the error of a page id or PSID, or None if it is valid."""
    # A number is rejected: JavaScript cannot represent such large ids exactly.
    if not isinstance(value, str):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return "Is a number. Quote it: ids are strings of digits."
        return "Must be a string of digits."
    if len(value) > MAX_ID_CHARACTERS:
        return f"Must have at most {MAX_ID_CHARACTERS} digits."
    if value.isascii() and value.isdigit():
        return None
    return "Must be a string of digits, nothing else." if value.strip() else "Must not be blank."


def _payload_id_fault(value: object) -> str | None:
    return _text_fault(value, MAX_PAYLOAD_ID_CHARACTERS, control_allowed=False)


def _metadata_fault(value: object) -> str | None:
    return _text_fault(value, MAX_METADATA_CHARACTERS, control_allowed=True)


def _text_fault(value: object, max_characters: int, *, control_allowed: bool) -> str | None:
    if not isinstance(value, str):
        return "Must be a string."
    if len(value) > max_characters:
        return f"Must have at most {max_characters} characters; has {len(value)}."
    if not value.strip():
        return "Must not be blank."
    # Fast path: most texts are printable ASCII.
    if value.isascii() and value.isprintable():
        return None
    categories = {unicodedata.category(character) for character in value}
    if "Cs" in categories:  # cannot be written as UTF-8
        return "Must be valid Unicode: it has half of a surrogate pair."
    if "Cc" in categories and not control_allowed:
        return "Must not have control characters."
    return None


class Checked(fields.Field[str]):
    """A string that is valid if `fault` returns None."""

    def __init__(self, fault: Callable[[object], str | None], **options: Any) -> None:
        super().__init__(**options)
        self.fault = fault

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> str:
        if (fault := self.fault(value)) is not None:
            raise ValidationError(fault)
        return cast("str", value)


class _StrictSchema(Schema):
    class Meta:
        unknown = RAISE

    error_messages = {  # noqa: RUF012 - marshmallow declares it as an instance attribute
        "unknown": "Is not a field of the API.",
        "type": "Must be an object.",
    }


class _RecipientSchema(_StrictSchema):
    id = Checked(id_fault, required=True)


class _MessageSchema(_StrictSchema):
    payload_id = Checked(_payload_id_fault, required=True)


class SendJobSchema(_StrictSchema):
    """The documented body. Unknown fields are errors."""

    messaging_type = Checked(_messaging_type_fault)
    recipient = fields.Nested(_RecipientSchema, required=True)
    message = fields.Nested(_MessageSchema, required=True)
    page_id = Checked(id_fault, required=True)
    metadata = Checked(_metadata_fault)


_SCHEMA = SendJobSchema()


def parse_send_job(body: Mapping[str, Any]) -> SendJob:
    """Validate `body`, the JSON object of the API, and return the job.

    Raises:
        InvalidJob: with the errors by field path, such as `recipient.id` (design promise 10).
    """
    if (job := _plain_job(body)) is not None:
        return job
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


def _plain_job(body: Any) -> SendJob | None:
    """Return the job of a valid body made of dicts, or None if the schema must decide.

    This takes a tenth of the schema's time, and most bodies are valid. The schema accepts every
    body that is accepted here.
    """
    if type(body) is not dict:
        return None
    try:
        recipient, message, page_id = body["recipient"], body["message"], body["page_id"]
        if not (type(recipient) is type(message) is dict and len(recipient) == len(message) == 1):
            return None
        recipient_id, payload_id = recipient["id"], message["payload_id"]
    except KeyError:
        return None
    metadata = body.get("metadata")
    known_fields = 3 + ("messaging_type" in body) + (metadata is not None)
    if (
        len(body) != known_fields
        or _messaging_type_fault(body.get("messaging_type", MESSAGING_TYPE))
        or id_fault(page_id)
        or id_fault(recipient_id)
        or _payload_id_fault(payload_id)
        or (metadata is not None and _metadata_fault(metadata))
    ):
        return None
    return SendJob(
        page_id=page_id, recipient_id=recipient_id, payload_id=payload_id, metadata=metadata
    )


def by_field_path(messages: Mapping[Any, Any], path: str = "") -> dict[str, list[str]]:
    """Return marshmallow's nested error messages by field path, such as `recipient.id`."""
    flat: dict[str, list[str]] = {}
    for name, value in messages.items():
        # marshmallow uses the key "_schema" for errors of the object itself.
        here = path if name == "_schema" else f"{path}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            flat |= by_field_path(value, here)
        else:
            flat[_shortened(here) or "job"] = [str(text) for text in value]
    return flat


def _shortened(path: str, limit: int = 100) -> str:
    """Sanitize and shorten a field name, which may be hostile."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in path)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
