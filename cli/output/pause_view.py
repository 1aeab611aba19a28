"""Paused pages for people: which, why, until when, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from ...ledger import Pause
from .printing import Column, shown
from .times import from_stored, local

PAUSE_COLUMNS = [
    Column("paused page"),
    Column("reason"),
    Column("error_code"),
    Column("until", spare=1),
    Column("what it means", fit="wrap"),
]
#: By the reason that the worker gave (`worker/outcome/policy.py`).
_MEANINGS = {
    "auth": "Its token was refused: put a new one into HARASOCIAL_TOKEN or HARASOCIAL_TOKENS_FILE.",
    "failing": "Its calls keep failing; one is tried now and then, and it goes on by itself.",
    "throttled": "It sent faster than the API allows; it goes on by itself.",
}


def pause_rows(pauses: Sequence[Pause], now: datetime) -> list[list[str]]:
    """Return the cells of each pause, under `PAUSE_COLUMNS`."""
    return [
        [
            shown(pause.page_id),
            shown(pause.reason),
            shown(pause.error_code),
            _until(from_stored(pause.until_ms), now),
            _MEANINGS.get(pause.reason, ""),
        ]
        for pause in pauses
    ]


def _until(until: datetime | None, now: datetime) -> str:
    # Once its time has come, it is the page's next job that ends the pause, or prolongs it.
    return "its next job" if until is not None and until <= now else local(until)
