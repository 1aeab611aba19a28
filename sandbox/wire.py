"""HTTP/1.1 as bytes: request heads in, replies out.

Written by hand, because a stand-in that misbehaves on purpose needs every byte in its hands, and
because one that keeps up with a fast client must do little per request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from http import HTTPStatus

#: Bytes of a request's line and headers. Longer ones are refused with 431.
MAX_HEAD_BYTES = 16 * 1024
#: Bytes of a request's body. Longer ones are refused with 413.
MAX_BODY_BYTES = 64 * 1024

PLAIN_TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) (HTTP/1\.[01])")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers whose repetition would leave open which one counts.
_SINGLE_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "content-type", "authorization"}
)
_METHODS_WITH_A_BODY = frozenset({"POST", "PUT", "PATCH"})


class RefusedRequestError(Exception):
    """A request that cannot be read to its end; the message says why, `status` is the reply's."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A request's first line and headers.

    `headers` holds them as they came, in order; `fields` by lower-case name, a repeated header's
    values joined by a comma. Heads are compared by identity: equal bytes give the same object.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    fields: dict[str, str]
    #: Bytes of the body that follows.
    body_bytes: int
    #: The client asked for the connection to be closed after the reply, or speaks HTTP/1.0.
    last: bool


# A client's heads differ from each other in their Content-Length at most, so few are parsed twice.
@lru_cache(maxsize=1024)
def parse_head(head: bytes) -> Head:
    """Parse the bytes before the empty line.

    Raises:
        RefusedRequestError: if they are not an HTTP/1.0 or HTTP/1.1 request head, or announce a
            body that is too large or of a length that is not told.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    request_line = _REQUEST_LINE.fullmatch(first)
    if request_line is None:
        raise RefusedRequestError("the first line is not METHOD TARGET HTTP/1.1")
    method, target, version = request_line.groups()
    headers = tuple(_parse_header(line) for line in lines)
    fields: dict[str, str] = {}
    for name, value in headers:
        known = name.lower()
        if known in fields and known in _SINGLE_HEADERS:
            raise RefusedRequestError(f"the header {name} is repeated")
        fields[known] = f"{fields[known]}, {value}" if known in fields else value
    if version == "HTTP/1.1" and "host" not in fields:
        raise RefusedRequestError("the header Host is missing")
    connection = {option.strip().lower() for option in fields.get("connection", "").split(",")}
    return Head(
        method=method,
        target=target,
        headers=headers,
        fields=fields,
        body_bytes=_body_bytes(method, fields),
        last="close" in connection or (version == "HTTP/1.0" and "keep-alive" not in connection),
    )


def _parse_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or _HEADER_NAME.fullmatch(name) is None:
        raise RefusedRequestError("a header is not NAME: VALUE")
    return name, value.strip(" \t")


def _body_bytes(method: str, fields: dict[str, str]) -> int:
    length = fields.get("content-length")
    if "transfer-encoding" in fields or (length is None and method in _METHODS_WITH_A_BODY):
        raise RefusedRequestError("the header Content-Length must tell the body's length", 411)
    if length is None:
        return 0
    if re.fullmatch(r"[0-9]{1,18}", length) is None:
        raise RefusedRequestError("Content-Length is not a number of bytes")
    if int(length) > MAX_BODY_BYTES:
        raise RefusedRequestError(f"the body is larger than {MAX_BODY_BYTES} bytes", 413)
    return int(length)


class Ending(Enum):
    """What becomes of the connection after a reply."""

    #: It serves the next request.
    KEEP = "keep"
    #: It is closed in order: FIN.
    CLOSE = "close"
    #: It is closed at once: RST.
    RESET = "reset"
    #: It is closed once the client has had time to read the reply, although it still sends.
    CLOSE_UNREAD = "close_unread"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Everything that goes back for one request: the bytes, their pace, and how it ends."""

    head: bytes = b""
    body: bytes = b""
    #: The documented accepted reply, whole: the message counts as accepted.
    accepted: bool = False
    ending: Ending = Ending.KEEP
    #: Seconds before the first byte; infinity for never.
    wait_seconds: float = 0.0
    head_seconds_per_byte: float = 0.0
    body_seconds_per_byte: float = 0.0
    #: The body is sent over and over until the client goes.
    endless: bool = False


def make_head(
    status: int,
    body_bytes: int | None,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str | None = PLAIN_TEXT,
    version: str = "HTTP/1.1",
) -> bytes:
    """Return a reply's head; without `body_bytes` it tells no Content-Length.

    Header values may be any text without control characters; they go out as UTF-8.
    """
    lines = [f"{version} {status} {reason(status)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if body_bytes is not None:
        lines.append(f"Content-Length: {body_bytes}")
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode()


def make_reply(
    status: int,
    body: bytes,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    content_type: str = PLAIN_TEXT,
    ending: Ending = Ending.KEEP,
) -> Reply:
    """Return an ordinary, well-formed reply of `status` 200 or higher."""
    if ending is not Ending.KEEP:
        headers = (*headers, ("Connection", "close"))
    if status in {204, 304}:  # they have no body by definition, and so no type or length
        return Reply(
            head=make_head(status, None, headers=headers, content_type=None), ending=ending
        )
    head = make_head(status, len(body), headers=headers, content_type=content_type)
    return Reply(head=head, body=body, ending=ending)


def reason(status: int) -> str:
    """Return the reason phrase of `status`, or a neutral word for one that has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
