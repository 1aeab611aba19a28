"""Replies as steps: bytes to send, delays, and the end of the connection."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from enum import Enum
from http import HTTPStatus

from .request import Headers, RawRequest

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class Ending(Enum):
    """A step that ends the connection. Without it, the connection stays open."""

    #: Close it normally (FIN).
    CLOSE = "close"
    #: Close it immediately (RST).
    RESET = "reset"
    #: Close it after the client had time to read the reply, even if the client is still sending.
    CLOSE_UNREAD = "close_unread"


#: Bytes to send, seconds to wait, or the end of the connection.
Step = bytes | float | Ending
#: The step that waits until the client closes the connection.
HANG = math.inf

#: Returns the reply to a request. The server closes the generator if the client disconnects. An
#: endless reply must contain delays (0.0 is enough), so that other connections are served.
Handler = Callable[[RawRequest], Generator[Step, None, None]]


def make_head(
    status: int,
    body_bytes: int | None,
    *,
    headers: Headers = (),
    content_type: str | None = PLAIN_TEXT,
    version: str = "HTTP/1.1",
) -> bytes:
    """Return the head of a reply. Without `body_bytes` it has no Content-Length.

    Header values may be any text without control characters, encoded as UTF-8.
    """
    lines = [f"{version} {status} {reason(status)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if body_bytes is not None:
        lines.append(f"Content-Length: {body_bytes}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode()


def make_reply(
    status: int, body: bytes, *, headers: Headers = (), content_type: str = PLAIN_TEXT
) -> bytes:
    """Return a well-formed reply with a `status` of 200 or higher."""
    if status in {204, 304}:  # these never have a body, and so no type or length
        return make_head(status, None, headers=headers, content_type=None)
    return make_head(status, len(body), headers=headers, content_type=content_type) + body


def make_plain_reply(status: int, headers: Headers = ()) -> bytes:
    """Return a reply whose body is the reason phrase, as a proxy or a web server sends it."""
    return make_reply(status, f"{status} {reason(status)}\n".encode(), headers=headers)


def reason(status: int) -> str:
    """Return the reason phrase of `status`, or a default for an unknown status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
