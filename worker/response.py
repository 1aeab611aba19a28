"""A reply as the standard library reads it, from a server that may be broken or hostile.

The library trusts a server in more than is good for a program that runs for months: it holds
megabytes of headers, reads a chunk of negative size to the end of the connection, and lets what
follows one reply pass for the next one.
"""

from __future__ import annotations

import io
import ssl
from http.client import HTTPException, HTTPResponse, parse_headers
from typing import Any

#: Bytes of a reply beside its body: the heads (also of interim replies), sizes of chunks, trailers.
MAX_HEAD_BYTES = 32 * 1024


class FinalResponse(HTTPResponse):
    """The response after any interim ones (1xx), of which the standard library skips only 100."""

    fp: Any

    def __init__(self, sock: Any) -> None:
        super().__init__(sock, method="POST")
        self._sock = sock
        self.fp = _CappedReader(self.fp.detach())

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the connection's end tells where the body ends."""
        return self.length is None and not self.chunked

    def begin(self) -> None:
        super().begin()
        if len(set(self.headers.get_all("Content-Length", []))) > 1:
            raise HTTPException("two lengths: nobody knows where the body ends")
        if (
            # What follows is another protocol, which nobody asked for.
            self.status == 101
            # Of several such headers, the library sees the first alone.
            or "close" in self.getheader("Connection", "").lower()
            # It does not undo this coding, so the body may be longer than it takes it to be.
            or ("Transfer-Encoding" in self.headers and not self.chunked)
        ):
            self.will_close = True

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # not public
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            parse_headers(self.fp)

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
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError:
            return False


class _CappedReader(io.BufferedReader):
    """What a reply is read from: lines up to a limit in all, and bodies as the caller says."""

    _left = MAX_HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException("the head is too long")
        if b"\r" in line[:-2]:
            raise HTTPException("a line within a line")
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            raise HTTPException("a chunk of negative size")
        return super().read(size)
