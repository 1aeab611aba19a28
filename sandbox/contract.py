"""A strict parser for the API's "Payload Id" contract, version 1.0. Pure.

It is based only on the API page and shares no code with the client, so that it does not repeat
mistakes of the client. It refuses everything that the page does not mention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from .reply import make_reply
from .request import RawRequest

METHOD = "POST"
PATH = "/social/messages.json"
ACCEPT = "text/plain"
CONTENT_TYPE = "application/json-patch+json"
MESSAGING_TYPE = "harasocial_facebook_payload_id"
#: Maximum characters of `metadata`.
MAX_METADATA_CHARACTERS = 500

#: The error_code of every reply with status 400. The API page does not document one.
INVALID_REQUEST = "invalid_request"
#: The documented body of a reply that accepts the message.
ACCEPTED_BODY = (
    b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'
)
#: The key of the token for every page that is not in the mapping of tokens.
ANY_PAGE = "*"


class Job(NamedTuple):
    """The four fields that identify a message."""

    page_id: str
    recipient_id: str
    payload_id: str
    metadata: str | None


class InvalidBodyError(ValueError):
    """The body does not match the API page. The message names the field."""


def error_reply(status: int, code: str, message: str) -> bytes:
    """Return the documented reply to a request that fails validation."""
    return make_reply(status, error_body(json.dumps(code), message))


def error_body(code_json: str, message: str) -> bytes:
    """Return the body of an error reply; `code_json` is the error_code encoded as JSON."""
    return (
        f'{{"data":null,"has_error":true,"error_code":{code_json},'
        f'"error_message":{json.dumps(message)}}}'
    ).encode()


def examine(request: RawRequest, tokens: Mapping[str, str]) -> tuple[Job | None, bytes | None]:
    """Return the job in a POST to `PATH`, and the reply that refuses the POST.

    The job is None if the body is invalid. The refusal is None if the request is valid. `tokens`
    maps page_id, or `ANY_PAGE`, to the page's token.
    """
    job: Job | None = None
    invalid: InvalidBodyError | None = None
    try:
        job = parse_body(request.body)
    except InvalidBodyError as error:
        invalid = error
    wrong_token = _wrong_token(request, job, tokens)
    if wrong_token is not None:
        challenge = (("WWW-Authenticate", "Bearer"),)
        return job, make_reply(401, f"{wrong_token}\n".encode(), headers=challenge)
    if _media_type(request.head.fields.get("content-type", "")) != CONTENT_TYPE:
        return job, make_reply(415, f"Content-Type must be {CONTENT_TYPE}\n".encode())
    accepted = request.head.fields.get("accept", "").split(",")
    if ACCEPT not in map(_media_type, accepted):
        return job, make_reply(406, f"accept must be {ACCEPT}\n".encode())
    if invalid is not None:
        return job, error_reply(400, INVALID_REQUEST, str(invalid))
    return job, None


def _wrong_token(request: RawRequest, job: Job | None, tokens: Mapping[str, str]) -> str | None:
    """Return the error of the token, or None if it is the token of the job's page.

    If the body has no page, the token of any page is valid.
    """
    scheme, _, token = request.head.fields.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        return "the header is not Authorization: Bearer {token}"
    if job is None:
        return None if token in tokens.values() else "the token belongs to no page"
    if token != tokens.get(job.page_id, tokens.get(ANY_PAGE)):
        return "the token does not belong to this page"
    return None


def _media_type(value: str) -> str:
    """Return the type of a header value without its parameters, such as a charset."""
    return value.partition(";")[0].strip().lower()


def parse_body(body: bytes) -> Job:
    """Return the job in `body`.

    Raises:
        InvalidBodyError: with the first field that is missing, unknown or of the wrong type.
    """
    try:
        document = _DECODER.decode(body.decode())
    except RecursionError:
        raise InvalidBodyError("the body is nested too deeply") from None
    except ValueError as error:
        raise InvalidBodyError(f"the body is not JSON: {error}") from None
    fields = _object(
        document, "the body", {"messaging_type", "recipient", "message", "page_id"}, {"metadata"}
    )
    recipient = _object(fields["recipient"], "recipient", {"id"})
    message = _object(fields["message"], "message", {"payload_id"})
    if fields["messaging_type"] != MESSAGING_TYPE:
        raise InvalidBodyError(f"messaging_type must be {MESSAGING_TYPE!r}")
    metadata = None
    if "metadata" in fields:
        metadata = _string(fields["metadata"], "metadata", blank_allowed=True)
        if len(metadata) > MAX_METADATA_CHARACTERS:
            raise InvalidBodyError(
                f"metadata must have at most {MAX_METADATA_CHARACTERS} characters, "
                f"not {len(metadata)}"
            )
    return Job(
        page_id=_string(fields["page_id"], "page_id"),
        recipient_id=_string(recipient["id"], "recipient.id"),
        payload_id=_string(message["payload_id"], "message.payload_id"),
        metadata=metadata,
    )


_NO_FIELDS: frozenset[str] = frozenset()


def _object(
    value: Any, where: str, required: set[str], optional: set[str] | frozenset[str] = _NO_FIELDS
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidBodyError(f"{where} must be an object")
    names = value.keys()
    if names == required:
        return value
    for name in sorted(required - names):
        raise InvalidBodyError(f"{name} is missing in {where}")
    for name in sorted(names - required - optional):
        raise InvalidBodyError(f"{name} in {where} is not a field of the API")
    return value


def _string(value: Any, where: str, *, blank_allowed: bool = False) -> str:
    if not isinstance(value, str):
        raise InvalidBodyError(f"{where} must be a string")
    if not blank_allowed and not value.strip():
        raise InvalidBodyError(f"{where} must not be blank")
    return value


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has a field twice")
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_fields)
