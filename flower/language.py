"""Which language a reader wants explanations in. Pure."""

from __future__ import annotations

import math

from ..schemas.language import LANGUAGES, Language

#: What each language calls itself.
LANGUAGE_NAMES: dict[Language, str] = {"en": "English", "vi": "Tiếng Việt"}
#: Parts of the header that are read; browsers send about five.
_MAX_RANGES = 20


def as_language(text: str | None) -> Language | None:
    """Return the language of a short name, or None if it is none of ours."""
    return next((language for language in LANGUAGES if language == text), None)


def preferred_language(accept_language: str) -> Language:
    """Return the language that a browser's `Accept-Language` prefers; English if none of ours.

    Never raises: the header may be any text.
    """
    best, best_quality = LANGUAGES[0], 0.0
    for part in accept_language.split(",")[:_MAX_RANGES]:
        tag, _, parameter = part.partition(";")
        language = as_language(tag.strip().split("-")[0].lower())
        quality = _quality(parameter)
        # Of equals, the first counts.
        if language is not None and quality > best_quality:
            best, best_quality = language, quality
    return best


def _quality(parameter: str) -> float:
    """Return the weight that a `q=0.8` gives; 1 where there is none, 0 where it makes no sense."""
    name, _, value = parameter.strip().partition("=")
    if not name:
        return 1.0
    try:
        quality = float(value) if name.strip() == "q" else math.nan
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
