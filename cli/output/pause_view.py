"""Print pauses as text: the page, the reason, the end, and the meaning."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from ...ledger import ALL_PAGES, MANUAL, Hold, Pause
from ...schemas import from_stored
from ...schemas.language import Language
from ...schemas.pause_reasons import PAUSE_REASONS
from .printing import Column, jobs, print_table, shown
from .times import local

PAUSE_COLUMNS = [
    Column("paused page"),
    Column("reason"),
    Column("error_code"),
    Column("until", spare=1),
    Column("meaning", fit="wrap"),
]


def print_pauses(pauses: Sequence[Pause], language: Language) -> None:
    """Print a table of pauses."""
    print_table(PAUSE_COLUMNS, pause_rows(pauses, datetime.now(timezone.utc), language))


def pause_rows(pauses: Sequence[Pause], now: datetime, language: Language) -> list[list[str]]:
    """Return the cells of each pause for `PAUSE_COLUMNS`."""
    return [
        [
            "all pages" if pause.page_id == ALL_PAGES else shown(pause.page_id),
            shown(pause.reason),
            shown(pause.error_code),
            until_text(pause, now),
            _meaning(pause, language),
        ]
        for pause in pauses
    ]


def waiting_text(
    pauses: Sequence[Pause], hold: Hold | None, ahead: int | None, now: datetime
) -> str:
    """Return why a job waits: the pauses of its page, the hold of its campaign, the jobs ahead."""
    parts = [_pause_text(pause, now) for pause in pauses]
    if hold is not None:
        parts.append(f"campaign held{_by_whom(hold.reason, hold.by, hold.at)}")
    if ahead is not None:
        parts.append(f"{jobs(ahead)} ahead")
    return ", ".join(parts)


def _pause_text(pause: Pause, now: datetime) -> str:
    subject = "all pages" if pause.page_id == ALL_PAGES else "page"
    until = f" until {until_text(pause, now)}"
    if pause.reason != MANUAL:
        code = f", {shown(pause.error_code)}" if pause.error_code else ""
        return f"{subject} paused ({shown(pause.reason)}{code}){until}"
    whom = _by_whom(pause.note, pause.by, from_stored(pause.since_ms))
    return f"{subject} paused by an operator{whom}{until}"


def _by_whom(reason: str | None, by: str | None, since: datetime | None) -> str:
    text = f": {shown(reason)}" if reason else ""
    return f"{text} (by {shown(by)} since {local(since)})"


def _meaning(pause: Pause, language: Language) -> str:
    if pause.reason != MANUAL:
        texts = PAUSE_REASONS.get(pause.reason)
        return " ".join(texts[language]) if texts else ""
    since = local(from_stored(pause.since_ms))
    note = f": {shown(pause.note)}" if pause.note else ""
    return f"Paused by {shown(pause.by)} since {since}{note}"


def until_text(pause: Pause, now: datetime) -> str:
    """Return the end of a pause, as text that follows the word "until"."""
    if pause.until_ms is None:
        return "it is resumed"
    until = from_stored(pause.until_ms)
    # After this time, the page's next job ends the pause or extends it.
    return "its next job" if until is not None and until <= now else local(until)
