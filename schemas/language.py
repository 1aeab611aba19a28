"""The languages of explanations, remedies and warnings."""

from __future__ import annotations

from typing import Literal, get_args

#: English, or Vietnamese.
Language = Literal["en", "vi"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
