"""Parse the API's reply, `{"data": {"success": true}, "has_error": false, …}`."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .redaction import redact

#: Maximum characters kept of an error code. The documented ones have at most 15.
MAX_ERROR_CODE_CHARACTERS = 64
#: Maximum characters kept of an error message.
MAX_ERROR_MESSAGE_CHARACTERS = 500
#: How much of a text is searched for the token, as a multiple of what is kept. The token must be
#: removed before the text is cut, and escapes make the text longer.
_SEARCHED_TIMES = 8
#: Maximum length of a short reply: longer than a reply to an accepted message, and short enough to
#: keep some hundred of them.
_SHORT_BYTES = 512
#: A message that begins with its code, in the format of Graph: `(#10) …`, `(#10/2018278) …`.
_CODE_IN_MESSAGE = re.compile(r"\(#(-?[0-9]{1,10}(?:/[0-9]{1,10})?)\)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiReply:
    """A reply body in the documented format.

    `success` is None if the reply has no `data.success`. `error_code` is a string even if the API
    sent a number. If the API sent no code, it is the code at the beginning of `error_message`, as
    in `(#10/2018278) …`, or None.
    """

    has_error: bool
    success: bool | None = None
    error_code: str | None = None
    error_message: str | None = None


def parse_reply(body: bytes, *, secret: str | None = None) -> ApiReply | None:
    """Parse `body`. Return None if it does not have the documented format.

    Never raises. Duplicate keys, NaN, deep nesting and very long numbers are invalid too, because
    JSON parsers interpret them differently.

    `secret`, the token, is removed from the texts, because the API may quote the refused request.
    """
    return (_parse_once if len(body) <= _SHORT_BYTES else _parse_body)(body, secret)


def _parse_body(body: bytes, secret: str | None) -> ApiReply | None:
    try:
        reply = json.loads(body, object_pairs_hook=unique_keys, parse_constant=_refuse)
        return _parse(reply, secret)
    except (ValueError, RecursionError):
        return None


#: Short replies are parsed once, because most of a campaign's replies are equal.
_parse_once = lru_cache(maxsize=256)(_parse_body)


def _parse(reply: Any, secret: str | None) -> ApiReply | None:
    if not isinstance(reply, dict) or not isinstance(reply.get("has_error"), bool):
        return None
    data = reply.get("data")
    if not isinstance(data, (dict, type(None))):
        return None
    success = data.get("success") if data else None
    if not isinstance(success, (bool, type(None))):
        return None
    error_code = _as_text(reply.get("error_code"), MAX_ERROR_CODE_CHARACTERS, secret)
    error_message = _as_text(reply.get("error_message"), MAX_ERROR_MESSAGE_CHARACTERS, secret)
    if error_code is None and (match := _CODE_IN_MESSAGE.match(error_message or "")):
        error_code = match[1]
    return ApiReply(
        has_error=reply["has_error"],
        success=success,
        error_code=error_code,
        error_message=error_message,
    )


def sanitize(text: str, limit: int) -> str:
    """Return `text` on one line, without control characters, with at most `limit` characters.

    The API's texts are shown in terminals, logs, events and web pages. Control characters and
    escape sequences must have no effect there, and a very long text must not fill them.
    """
    text = text[: limit + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _as_text(value: Any, limit: int, secret: str | None) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = text[: _SEARCHED_TIMES * limit]
    if secret:
        text = redact(text, secret)
    return sanitize(text, limit).strip() or None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise ValueError if one of two values would be lost silently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a duplicate key")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
