"""Open a file of rows as text, and detect its encoding."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, cast

import click

#: Replaces undecodable bytes. Valid text never contains half of a surrogate pair.
_MARK = "\udc80"
_MARK_ERRORS = f"{__name__}.mark"

#: Errors for files that are not text, by their first bytes.
_NOT_TEXT = {
    b"PK\x03\x04": 'is a workbook (.xlsx or .ods), not CSV. Save it as "CSV UTF-8"',
    b"\xd0\xcf\x11\xe0": 'is an Excel workbook (.xls), not CSV. Save it as "CSV UTF-8"',
    b"\x1f\x8b": "is compressed. Decompress it first, for example with gunzip",
}
_LONGEST_BEGINNING = 4


def open_text(stream: BinaryIO, name: str) -> io.TextIOWrapper:
    """Return `stream` as text. Line endings (LF, CR LF or CR) are not translated.

    UTF-8 and UTF-16 are detected, each with and without a byte order mark. Undecodable bytes are
    replaced by a character that `undecodable_at` finds. `stream` is not closed.

    Raises:
        click.UsageError: the file is a workbook or a compressed file.
    """
    source = cast("io.BufferedIOBase", stream)
    beginning = b""
    while len(beginning) < _LONGEST_BEGINNING:
        if not (more := source.read1(_LONGEST_BEGINNING - len(beginning))):
            break
        beginning += more
    if problem := _NOT_TEXT.get(beginning) or _NOT_TEXT.get(beginning[:2]):
        raise click.UsageError(f"{name} {problem}, and enqueue that file.")
    whole = io.BufferedReader(_Rejoined(beginning, source), 1 << 16)
    return io.TextIOWrapper(whole, _encoding(beginning), errors=_MARK_ERRORS, newline="")


def undecodable_at(text: str) -> int:
    """Return the index of the first undecodable character, or -1 if there is none."""
    return text.find(_MARK)


def _encoding(beginning: bytes) -> str:
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # CSV and JSON lines begin with an ASCII character and contain no NUL.
    if beginning[1:2] == b"\0":
        return "utf-16-le"
    if beginning[:1] == b"\0":
        return "utf-16-be"
    return "utf-8-sig"


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK, error.end


codecs.register_error(_MARK_ERRORS, _mark)


class _Rejoined(io.RawIOBase):
    """A stream of the bytes of `beginning`, followed by the bytes of `rest`."""

    def __init__(self, beginning: bytes, rest: io.BufferedIOBase) -> None:
        self._beginning = beginning
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of any buffer
        data = self._beginning or self._rest.read1(len(buffer))
        self._beginning = b""
        buffer[: len(data)] = data
        return len(data)
