"""Recognizes numbers whose last digits a spreadsheet has replaced. Pure.

A spreadsheet keeps 15 digits of a number. It shows and saves a long one as `2.56082E+15`, or, in a
wider column, with zeros in place of the other digits: `2560816460648740`. The first is certain. The
second may be an id that ends so (every tenth one of 16 digits does), so a whole column is judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

#: Digits of a number that a spreadsheet keeps.
_KEPT_DIGITS = 15
#: Zeros in place of lost digits that convince. By chance, one column in a million has so many.
_CONVINCING_ZEROS = 6
#: Zeros, in at least half of the long numbers of a column, that deserve a warning.
_DOUBTFUL_ZEROS = 4

_SCIENTIFIC = re.compile(r"[0-9]+(?:[.,][0-9]+)?[eE]\+?[0-9]+")
#: As spreadsheets write it. A key such as `12e34` is left alone.
_SCIENTIFIC_OF_SPREADSHEET = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]+")


def is_rounded_id(text: str) -> bool:
    """Return whether `text`, in the place of an id, is a rounded number for certain."""
    return not text.isdigit() and _SCIENTIFIC.fullmatch(text) is not None


def is_rounded_key(text: str) -> bool:
    """Return whether `text`, in the place of an idempotency key, is a rounded number."""
    return _SCIENTIFIC_OF_SPREADSHEET.fullmatch(text) is not None


def ends_in_zeros(text: str) -> bool:
    """Return whether `text` is a long number that has only zeros after its 15th digit."""
    return bool(_lost_digits(text)) and not text[_KEPT_DIGITS:].strip("0")


def judge_column(ids: Iterable[str]) -> Literal["rounded", "doubtful", "fine"]:
    """Return whether a spreadsheet has rounded the long numbers among `ids`.

    "rounded" is certain: each one ends in zeros after its 15th digit, and together, each different
    id counted once, they have more such zeros than chance would give. "doubtful" deserves a
    warning: so many end in zeros that some may have been rounded.
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
    """Return how many digits of a number a spreadsheet would not keep."""
    return max(0, len(text) - _KEPT_DIGITS) if text.isascii() and text.isdigit() else 0
