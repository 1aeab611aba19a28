"""Choose the language of explanations. Pure."""

from __future__ import annotations

import math

from ..schemas.language import LANGUAGES, Language

#: The name of each language in that language.
LANGUAGE_NAMES: dict[Language, str] = {"en": "English", "vi": "Tiếng Việt"}
#: Maximum number of parts of the header to parse; browsers send about five.
_MAX_RANGES = 20


def as_language(text: str | None) -> Language | None:
    """Return the language of a code, or None if it is not supported."""
    return next((language for language in LANGUAGES if language == text), None)


def preferred_language(accept_language: str) -> Language:
    """Return the preferred language of an `Accept-Language` header; English by default.

    Never raises: the header may be any text.
    """
    best, best_quality = LANGUAGES[0], 0.0
    for part in accept_language.split(",")[:_MAX_RANGES]:
        tag, _, parameter = part.partition(";")
        language = as_language(tag.strip().split("-")[0].lower())
        quality = _quality(parameter)
        # If weights are equal, the first language is chosen.
        if language is not None and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameter: str) -> float:
    """Return the weight of a part such as `vi;q=0.8`: 1 if missing, 0 if invalid."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else math.nan
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
