"""Mask personal ids for display: enough digits to recognize a person, not enough to use."""

from __future__ import annotations

from . import sanitize

#: Maximum characters of an id that are shown or masked. A Messenger id has 15 to 17.
_MAX_CHARACTERS = 64
_SHOWN_CHARACTERS = 4


def masked(personal_id: object) -> str:
    """Hide all but the last 4 characters of a personal id. Hide a short id completely."""
    text = "" if personal_id is None else sanitize(str(personal_id), _MAX_CHARACTERS)
    shown = text[-_SHOWN_CHARACTERS:] if len(text) > _SHOWN_CHARACTERS else ""
    return "*" * (len(text) - len(shown)) + shown
