"""Opens a file of rows as text, whatever a spreadsheet or a shell has encoded it in."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, cast

import click

#: What undecodable bytes become. No valid text contains half of a surrogate pair.
_MARK = "\udc80"
_MARK_ERRORS = f"{__name__}.mark"

#: What is not text, by its first bytes, and what to do about it.
_NOT_TEXT = {
    b"PK\x03\x04": 'is a workbook (.xlsx or .ods), not CSV. Save it as "CSV UTF-8"',
    b"\xd0\xcf\x11\xe0": 'is an Excel workbook (.xls), not CSV. Save it as "CSV UTF-8"',
    b"\x1f\x8b": "is compressed. Unpack it first, as with gunzip",
}
_LONGEST_BEGINNING = 4


def open_text(stream: BinaryIO, name: str) -> io.TextIOWrapper:
    """Return `stream` as text; its lines end with LF, CR LF or CR, and keep that.

    UTF-8 and UTF-16 are recognized, each with and without a byte order mark. What cannot be decoded
    becomes a character that `undecodable_at` finds. `stream` is not closed.

    Raises:
        click.UsageError: it is not text but a workbook or a compressed file.
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
    """Return the index of the first character that could not be decoded; -1 if there is none."""
    return text.find(_MARK)


def _encoding(beginning: bytes) -> str:
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # CSV and JSON lines begin with an ASCII character; neither contains a NUL.
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
    """The bytes of `beginning`, and then those of `rest`."""

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
