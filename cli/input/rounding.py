"""Detect numbers that a spreadsheet has rounded. Pure.

A spreadsheet keeps only 15 digits of a number. It saves a longer number as `2.56082E+15` or, in a
wider column, with zeros as the last digits: `2560816460648740`. The first form is always rounded.
The second form can be a valid id, since every tenth id of 16 digits ends in 0. Therefore the whole
column is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

#: Number of digits that a spreadsheet keeps.
_KEPT_DIGITS = 15
#: From this number of zeros, a column is rounded. By chance, one column in a million has as many.
_CONVINCING_ZEROS = 6
#: From this number of zeros, in at least half of a column's long numbers, a warning is printed.
_DOUBTFUL_ZEROS = 4

_SCIENTIFIC = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")
#: The exponent form of spreadsheets. A key such as `12e34` does not match.
_SCIENTIFIC_OF_SPREADSHEET = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]+")


def is_rounded_id(text: str) -> bool:
    """Return whether the id `text` is certainly a rounded number."""
    return not text.isdigit() and _SCIENTIFIC.fullmatch(text) is not None


def is_rounded_key(text: str) -> bool:
    """Return whether the idempotency key `text` is a rounded number."""
    return _SCIENTIFIC_OF_SPREADSHEET.fullmatch(text) is not None


def ends_in_zeros(text: str) -> bool:
    """Return whether `text` is a long number with only zeros after its 15th digit."""
    return bool(_lost_digits(text)) and not text[_KEPT_DIGITS:].strip("0")


def judge_column(ids: Iterable[str]) -> Literal["rounded", "doubtful", "fine"]:
    """Return whether a spreadsheet has rounded the long numbers among `ids`.

    "rounded": every id ends in zeros after its 15th digit, and the distinct ids together have too
    many of these zeros to be a coincidence. "doubtful": many ids end in zeros, so some of them may
    be rounded.
    """
    long_ids = {text for text in ids if _lost_digits(text)}
    in_zeros = {text for text in long_ids if ends_in_zeros(text)}
    zeros = sum(map(_lost_digits, in_zeros))
    if in_zeros == long_ids and zeros >= _CONVINCING_ZEROS:
        return "rounded"
    if 2 * len(in_zeros) >= len(long_ids) and zeros >= _DOUBTFUL_ZEROS:
        return "doubtful"
    return "fine"


def _lost_digits(text: str) -> int:
    """Return the number of digits that a spreadsheet would lose."""
    return max(0, len(text) - _KEPT_DIGITS) if text.isascii() and text.isdigit() else 0
