"""Personal ids for people's eyes: enough to recognise, not enough to use."""

from __future__ import annotations

from . import sanitize

#: Characters of a personal id that are looked at; a person's id at Messenger has 15 to 17.
_MAX_CHARACTERS = 64
_SHOWN_CHARACTERS = 4


def masked(personal_id: object) -> str:
    """Return a personal id with all but its last 4 characters hidden; a short one whole."""
    text = "" if personal_id is None else sanitize(str(personal_id), _MAX_CHARACTERS)
    shown = text[-_SHOWN_CHARACTERS:] if len(text) > _SHOWN_CHARACTERS else ""
    return "*" * (len(text) - len(shown)) + shown
