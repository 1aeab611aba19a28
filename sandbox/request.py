"""Read HTTP/1.1 requests, with limits. httptools parses their heads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import httptools

#: Maximum bytes of a request's line and headers; larger ones are refused with 431.
MAX_HEAD_BYTES = 16 * 1024
#: Maximum bytes of a request's body; larger ones are refused with 413.
MAX_BODY_BYTES = 64 * 1024

Headers = tuple[tuple[str, str], ...]

_END_OF_HEAD = b"\r\n\r\n"
#: Headers that must not be repeated, because two values would be ambiguous.
_SINGLE_HEADERS = frozenset({"host", "content-type", "authorization"})
_METHODS_WITH_A_BODY = frozenset({"POST", "PUT", "PATCH"})


class RefusedRequestError(Exception):
    """An invalid request. The message is the reason, and `status` is the reply's status."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Head:
    """A request's line and headers. The methods `on_...` are httptools' callbacks.

    Raises:
        RefusedRequestError: the data is not the head of an HTTP/1.0 or HTTP/1.1 request, or the
            body is too large or has no known length.
    """

    def __init__(self, data: bytes) -> None:
        #: The request target: the path and the query, or a whole URL if the client uses a proxy.
        self.path = ""
        #: Lower-case name → value; the values of a repeated header are joined by commas.
        self.fields: dict[str, str] = {}
        #: False if the client requests to close the connection after the reply, or to upgrade it.
        self.keep_alive = False
        self._headers: list[tuple[str, str]] = []
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise RefusedRequestError(f"the request is not HTTP/1.1: {error}") from None
        #: Names and values, unchanged and in order.
        self.headers: Headers = tuple(self._headers)
        self.method: str = self._parser.get_method().decode()
        self._join_repeated_headers()
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            raise RefusedRequestError(f"the request is HTTP/{version}, not HTTP/1.1")
        if version == "1.1" and "host" not in self.fields:
            raise RefusedRequestError("the header Host is missing")
        #: Length of the body.
        self.body_bytes = self._find_body_bytes()

    def on_url(self, url: bytes) -> None:
        """Add a part of the request target."""
        self.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        self._headers.append((name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        """Store the values that the parser loses at the end of the request."""
        parser = self._parser
        self.keep_alive = parser.should_keep_alive() and not parser.should_upgrade()

    def _join_repeated_headers(self) -> None:
        for name, value in self.headers:
            field = name.lower()
            if field not in self.fields:
                self.fields[field] = value
            elif field in _SINGLE_HEADERS:
                raise RefusedRequestError(f"the header {name} is repeated")
            else:
                self.fields[field] += f", {value}"

    def _find_body_bytes(self) -> int:
        length = self.fields.get("content-length")
        missing = length is None and self.method in _METHODS_WITH_A_BODY
        if missing or "transfer-encoding" in self.fields:
            raise RefusedRequestError("the header Content-Length must give the body's length", 411)
        body_bytes = int(length or 0)
        if body_bytes > MAX_BODY_BYTES:
            raise RefusedRequestError(f"the body is larger than {MAX_BODY_BYTES} bytes", 413)
        return body_bytes


# Cached: the heads of a client differ only in their Content-Length.
@lru_cache(maxsize=1024)
def _parse_head(data: bytes) -> Head:
    return Head(data)


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A received request, unchanged."""

    head: Head
    body: bytes

    @property
    def method(self) -> str:
        """The method."""
        return self.head.method

    @property
    def path(self) -> str:
        """The request target."""
        return self.head.path

    @property
    def headers(self) -> Headers:
        """Names and values, unchanged and in order."""
        return self.head.headers


class RequestBuffer:
    """Splits the bytes of one connection into requests."""

    def __init__(self) -> None:
        self._received = b""
        self._continued = False

    def add(self, data: bytes) -> None:
        """Add received bytes."""
        self._received += data

    def is_full(self) -> bool:
        """Return whether the buffer has more bytes than a request may have."""
        return len(self._received) > MAX_HEAD_BYTES + MAX_BODY_BYTES

    def take_request(self) -> RawRequest | None:
        """Remove the first request and return it, or None if it is not complete.

        Raises:
            RefusedRequestError: the request is invalid. All further bytes are meaningless.
        """
        head_bytes = self._received.find(_END_OF_HEAD)
        if (len(self._received) if head_bytes < 0 else head_bytes) > MAX_HEAD_BYTES:
            raise RefusedRequestError(f"the headers are larger than {MAX_HEAD_BYTES} bytes", 431)
        if head_bytes < 0:
            return None
        body_start = head_bytes + len(_END_OF_HEAD)
        head = _parse_head(self._received[:body_start])
        body_end = body_start + head.body_bytes
        if len(self._received) < body_end:
            return None
        body = self._received[body_start:body_end]
        self._received = self._received[body_end:]
        self._continued = False
        return RawRequest(head, body)

    def must_continue(self) -> bool:
        """Return whether the client waits for `100 Continue`. True only once per request."""
        head, end, _ = self._received.partition(_END_OF_HEAD)
        if self._continued or not end:
            return False
        self._continued = "100-continue" in _parse_head(head + end).fields.get("expect", "").lower()
        return self._continued
