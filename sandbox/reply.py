"""Replies as steps: bytes to send, delays, and how the connection ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from enum import Enum
from http import HTTPStatus

from .request import Headers, RawRequest

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


class Ending(Enum):
    """A step that ends the connection; without one it stays open for the next request."""

    #: Close it in order (FIN).
    CLOSE = "close"
    #: Close it at once (RST).
    RESET = "reset"
    #: Close it once the client has had time to read the reply, although the client still sends.
    CLOSE_UNREAD = "close_unread"


#: Bytes to send, seconds to wait, or the end of the connection.
Step = bytes | float | Ending
#: The step that waits until the client closes the connection.
HANG = math.inf

#: Returns the reply to a request. The server closes the generator if the client disconnects.
#: An endless reply must contain a delay, at least 0.0, so that other connections are served.
Handler = Callable[[RawRequest], Generator[Step, None, None]]


def make_head(
    status: int,
    body_bytes: int | None,
    *,
    headers: Headers = (),
    content_type: str | None = PLAIN_TEXT,
    version: str = "HTTP/1.1",
) -> bytes:
    """Return a reply's head; without `body_bytes` it has no Content-Length.

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
    """Return an ordinary, well-formed reply of `status` 200 or higher."""
    if status in {204, 304}:  # these have no body by definition, and so no type or length
        return make_head(status, None, headers=headers, content_type=None)
    return make_head(status, len(body), headers=headers, content_type=content_type) + body


def make_plain_reply(status: int, headers: Headers = ()) -> bytes:
    """Return a reply whose body is the status in words, as a proxy or a web server sends it."""
    return make_reply(status, f"{status} {reason(status)}\n".encode(), headers=headers)


def reason(status: int) -> str:
    """Return the reason phrase of `status`, or a neutral word for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
