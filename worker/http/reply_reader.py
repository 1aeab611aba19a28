"""Read replies from a server that may be broken or hostile. No I/O.

llhttp parses the replies. This module limits the amount of data, skips interim replies (1xx), and
determines whether the connection may be used for another call.
"""

from __future__ import annotations

import io

import httptools
import urllib3
from urllib3.exceptions import HTTPError

from .reply import CallFailed, Reply

#: Maximum bytes of a reply's body. The documented body has about a hundred.
MAX_BODY_BYTES = 64 * 1024
#: Maximum bytes of a reply besides its body: heads (including those of interim replies), chunk
#: sizes and extensions, trailers.
MAX_HEAD_BYTES = 32 * 1024
#: Bytes per call of the parser. The limits may be exceeded by this number of bytes.
_PIECE_BYTES = 4096

_SWITCHING_PROTOCOLS = 101
_CALL_LIMIT = b"x-haravan-api-call-limit"
_WANTED = frozenset((b"retry-after", b"date", b"content-encoding", _CALL_LIMIT))

Ending = Reply | CallFailed


class ReplyReader:
    """Reads the consecutive replies of a connection. Call `begin` before each reply.

    The parser calls the methods named `on_…`.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.begin()

    def begin(self) -> None:
        """Prepare for the next reply."""
        #: Whether the connection may be used for another call: the reply was complete, no
        #: data follows, and neither side announced the end of the connection.
        self.may_be_kept = False
        self._status = 0
        self._head_is_whole = False
        self._body_is_whole = False
        self._is_whole = False
        self._is_framed = False
        self._is_foreign = False
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._fed_bytes = 0

    def close(self) -> None:
        """Release the parser, which has a reference to this object."""
        del self._parser

    def feed(self, data: bytes) -> Ending | None:
        """Process received data. Return the end of the call, or None if it has not ended."""
        if len(data) <= _PIECE_BYTES:
            return self._feed(data)
        for start in range(0, len(data), _PIECE_BYTES):
            if (ending := self._feed(data[start : start + _PIECE_BYTES])) is not None:
                if start + _PIECE_BYTES < len(data):
                    self.may_be_kept = False
                return ending
        return None

    def _feed(self, data: bytes) -> Ending | None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            # A bug in this class, or an exception from a signal handler.
            raise (error.__context__ or error) from None
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.may_be_kept = False
            if not self._is_whole:
                return self.stop("connection_lost", "the reply is not valid HTTP")
        if self._is_foreign:
            return self.stop("connection_lost", "the reply is not HTTP/1")
        if self._is_whole:
            return self._reply()
        self._fed_bytes += len(data)
        if self._body_bytes > MAX_BODY_BYTES:
            return self._reply()
        if self._fed_bytes - self._body_bytes > MAX_HEAD_BYTES:
            return self.stop("connection_lost", "the reply's head is too long")
        return None

    def end_of_stream(self) -> Ending:
        """Return the end of the call after the server closed the connection normally."""
        if self._head_is_whole and not self._is_framed:
            self._body_is_whole = True
        return self.stop("connection_lost", "the connection closed before the end of the reply")

    def stop(self, kind: str, detail: str) -> Ending:
        """Return the end of the call if no more data is read. `kind` is the reason."""
        self.may_be_kept = False
        if self._body_is_whole:
            return self._reply()
        if self._head_is_whole and not 200 <= self._status < 300:
            # For such a reply, the status is sufficient.
            return self._reply_with(None)
        return CallFailed(kind, detail)

    def _reply(self) -> Reply:
        body: bytes | None = None
        if self._body_bytes <= MAX_BODY_BYTES:
            body = _decompressed(b"".join(self._body), self._field(b"content-encoding"))
        if body is None:
            self.may_be_kept = False
        return self._reply_with(body)

    def _reply_with(self, body: bytes | None) -> Reply:
        return Reply(
            status=self._status,
            body=body,
            retry_after=self._field(b"retry-after"),
            date=self._field(b"date"),
            call_limit=self._field(_CALL_LIMIT),
        )

    def _field(self, name: bytes) -> str | None:
        value = self._fields.get(name)
        return None if value is None else value.decode("latin-1")

    def on_message_begin(self) -> None:
        if self._is_whole:
            # The start of an unexpected second reply.
            self.may_be_kept = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_whole:
            return
        if self._head_is_whole:
            # A trailer: the body is complete.
            self._body_is_whole = True
            return
        name = name.lower()
        if name in _WANTED:
            before = self._fields.get(name)
            self._fields[name] = value if before is None else before + b", " + value
        elif name == b"content-length" or (
            name == b"transfer-encoding" and value.lower().endswith(b"chunked")
        ):
            self._is_framed = True

    def on_headers_complete(self) -> None:
        if self._is_whole:
            return
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            self._is_foreign = True
            return
        self._status = self._parser.get_status_code()
        if self._is_interim():
            self._fields.clear()
            self._is_framed = False
        else:
            self._head_is_whole = True

    def on_body(self, body: bytes) -> None:
        if self._is_whole:
            return
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._is_whole or self._is_interim():
            return
        self._is_whole = self._body_is_whole = True
        self.may_be_kept = (
            self._parser.should_keep_alive()
            # The server switches to another protocol, which was not requested.
            and self._status != _SWITCHING_PROTOCOLS
        )

    def _is_interim(self) -> bool:
        return 100 <= self._status < 200 and self._status != _SWITCHING_PROTOCOLS


def _decompressed(body: bytes, content_encoding: str | None) -> bytes | None:
    """Decompress a body that was compressed without a request. Return None if it is too large."""
    if content_encoding is None:
        return body
    packed = urllib3.HTTPResponse(
        io.BytesIO(body), {"Content-Encoding": content_encoding}, preload_content=False
    )
    try:
        unpacked = packed.read(MAX_BODY_BYTES + 1)
    except HTTPError:
        return None
    return unpacked if len(unpacked) <= MAX_BODY_BYTES else None
