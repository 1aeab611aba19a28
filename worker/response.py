"""A reply as it is read from a connection, from a server that may be broken or hostile.

The standard library reads the body. It reads a head as it would a mail, which costs more than all
the rest of a reply and, with headers made for that, minutes and hundreds of megabytes; so a head is
read here. Nor does the library see what follows a reply, which would pass for the next one.
"""

from __future__ import annotations

import io
import re
import ssl
from http.client import HTTPException, HTTPResponse, UnknownProtocol
from typing import Any

#: Bytes of a reply beside its body: the heads (also of interim replies), sizes of chunks, trailers.
MAX_HEAD_BYTES = 32 * 1024


class FinalResponse(HTTPResponse):
    """The response that follows any interim ones (1xx)."""

    #: Header fields by their names in lower case.
    fields: dict[str, str]

    fp: Any
    chunk_left: int | None

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, method="POST")
        self._sock = sock
        self.fp = _CappedReader(self.fp.detach())

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the connection's end tells where the body ends."""
        return self.length is None and not self.chunked

    def begin(self) -> None:
        """Read the head, as RFC 9112 has it.

        Raises:
            http.client.HTTPException, OSError: there is none, or it is no HTTP.
        """
        self.status = 100
        while 100 <= self.status < 200 and self.status != 101:
            version, self.status, _ = self._read_status()  # type: ignore[attr-defined]
            self.fields = _read_fields(self.fp)
        if not version.startswith("HTTP/1."):
            raise UnknownProtocol(version)
        coding = self.fields.get("transfer-encoding")
        self.chunked = coding is not None and coding.lower() == "chunked"
        self.chunk_left = None
        self.length = None if self.chunked else _length(self.fields.get("content-length"))
        if self.status in (101, 204, 304):
            self.length = 0
        connection = self.fields.get("connection", "").lower()
        self.will_close = (
            "close" in connection
            or (version == "HTTP/1.0" and "keep-alive" not in connection)
            or self.ends_with_connection
            # What follows is another protocol, which nobody asked for.
            or self.status == 101
            # The body is not read as this has it, so more may follow it.
            or (coding is not None and not self.chunked)
        )

    def _close_conn(self) -> None:
        """Stop reading, at the end of the reply. What came after it would be the next one's."""
        if not self._is_followed_by_nothing():
            self.will_close = True
        super()._close_conn()  # type: ignore[misc]  # not public

    def _is_followed_by_nothing(self) -> bool:
        """Return whether the connection is quiet, here and in TLS, and open."""
        try:
            self._sock.settimeout(0)
            return self.fp.read(1) is None
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False


def _read_fields(fp: _CappedReader) -> dict[str, str]:
    """Read header fields up to the blank line; those of one name become one, as a list."""
    fields: dict[str, str] = {}
    name = ""
    while line := fp.readline().decode("latin-1").rstrip("\r\n"):
        first, _, value = line.partition(":")
        if line[0] in " \t":
            # The field before goes on.
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        else:
            name = first.lower()
            fields[name] = ", ".join(filter(None, (fields.get(name), value.strip())))
    return fields


def _length(text: str | None) -> int | None:
    """Return what `Content-Length` says; None where it says nothing that can be understood."""
    length, *others = {part.strip() for part in (text or "").split(",")}
    if others:
        raise HTTPException("two lengths: nobody knows where the body ends")
    return int(length) if re.fullmatch("[0-9]{1,18}", length) else None


class _CappedReader(io.BufferedReader):
    """What a reply is read from: lines up to a limit in all, and bodies as the caller says."""

    _left = MAX_HEAD_BYTES

    def readline(self, _size: int | None = -1, /) -> bytes:
        line = super().readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException("the head is too long")
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise HTTPException("a chunk of negative size")
        return super().read(size)
