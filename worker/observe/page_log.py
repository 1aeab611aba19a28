"""Log changes of pages: paused, restricted, probed, resumed."""

from __future__ import annotations

import logging
from collections import deque
from datetime import timedelta
from typing import NamedTuple

from ...ledger import ALL_PAGES, AuditEntry, PageChange, Reader
from ...schemas import from_ms, iso_utc
from .limited_log import LimitedLog, Line

#: Action in the audit → action in the log. Replays and cancellations of jobs are not logged.
_OPERATION_ACTIONS = {
    "pause": "page_paused",
    "resume": "page_resumed",
    "rate": "page_rate",
    "hold": "campaign_held",
    "release": "campaign_released",
}
#: Maximum operations per call of `log_new`, and how far back it searches: more than the time
#: between two sweeps.
_OPERATIONS, _LOOK_BACK_MS = 100, 60_000

logger = logging.getLogger(__name__)


class OperationLog:
    """Logs the operations of operators on pages and campaigns, one line per audit entry."""

    def __init__(self) -> None:
        self._seen: deque[str] | None = None

    def log_new(self, reader: Reader) -> None:
        """Log the operations since the last call. The first call logs none.

        Raises:
            QueueUnavailable: Redis did not reply.
        """
        since = from_ms(max(0, reader.now_ms() - _LOOK_BACK_MS))
        entries = reader.audit(_OPERATIONS, since=since)
        if self._seen is None:
            self._seen = deque((entry.operation_id for entry in entries), maxlen=2 * _OPERATIONS)
            return
        for entry in reversed(entries):
            if entry.operation_id not in self._seen:
                self._seen.append(entry.operation_id)
                # The automatic operations of a worker are already logged.
                if entry.action in _OPERATION_ACTIONS and entry.via != "worker":
                    _log_operation(entry, reader)


def _log_operation(entry: AuditEntry, reader: Reader) -> None:
    waiting: int | None = None
    if entry.page_id and entry.page_id != ALL_PAGES:
        waiting = reader.count_waiting([entry.page_id])[entry.page_id]
    subject = f"campaign {entry.campaign}" if entry.campaign else f"page {entry.page_id}"
    if entry.page_id == ALL_PAGES:
        subject = "all pages"
    facts = "".join(f", {name}={value}" for name, value in entry.details.items())
    logger.warning(
        "%s: %s by %s (%s)%s%s",
        subject,
        entry.action,
        entry.by,
        entry.via,
        f": {entry.reason}" if entry.reason else "",
        facts,
        extra={
            "action": _OPERATION_ACTIONS[entry.action],
            "page_id": entry.page_id,
            "reason": "manual",
            "until": _end_of_pause(entry),
            "waiting_jobs": waiting,
        },
    )


def _end_of_pause(entry: AuditEntry) -> str | None:
    seconds = entry.details.get("for_seconds")
    if entry.at is None or not isinstance(seconds, (int, float)):
        return None
    try:
        return iso_utc(entry.at + timedelta(seconds=seconds))
    except (OverflowError, ValueError):
        return None  # written by another client


class _Kind(NamedTuple):
    action: str
    reason: str


def log_page_change(change: PageChange) -> None:
    """Log a line, or a summary if many pages change. Does not raise."""
    _pages.log(_kind_of(change), _line_of(change))


def flush_page_log() -> None:
    """Log the summary of the lines that were omitted so far, before the process ends."""
    _pages.flush()


def _kind_of(change: PageChange) -> _Kind:
    restricted = change.change == "paused" and change.reason == "restricted"
    return _Kind("page_restricted" if restricted else f"page_{change.change}", change.reason)


def _line_of(change: PageChange) -> Line:
    kind = _kind_of(change)
    cause = f"{change.reason} ({change.error_code})" if change.error_code else change.reason
    until = None
    if change.change == "paused":
        until = _time(change.until_ms)
        what = "is restricted" if kind.action == "page_restricted" else "is paused"
        text = f"{what} until {until}: {cause}"
    elif change.change == "probed":
        text = f"is probed with one job after its pause: {cause}"
    else:
        text = f"is resumed; it was paused: {cause}"
    of_token = change.page_id.startswith("token:")
    return Line(
        _level(kind),
        "%s %s%s",
        (
            f"every page of {change.page_id}" if of_token else f"page {change.page_id}",
            text,
            "" if of_token else f"; {change.waiting} jobs wait",
        ),
        {
            "action": kind.action,
            "page_id": None if of_token else change.page_id,
            "error_code": change.error_code,
            "reason": change.reason,
            "until": until,
            "waiting_jobs": None if of_token else change.waiting,
        },
    )


def _summary_line(kind: _Kind, count: int) -> Line:
    return Line(
        _level(kind),
        "%d more pages: %s (%s)",
        (count, kind.action.removeprefix("page_"), kind.reason),
        {"action": kind.action, "count": count, "reason": kind.reason},
    )


def _others_line(kinds: int, count: int) -> Line:
    return Line(
        logging.WARNING,
        "%d more changes of pages (%d kinds)",
        (count, kinds),
        {"action": "pages_not_logged", "count": count},
    )


def _level(kind: _Kind) -> int:
    is_pause = kind.action in ("page_paused", "page_restricted")
    return logging.WARNING if is_pause else logging.INFO


def _time(ms: int) -> str | None:
    try:
        return iso_utc(from_ms(ms))
    except (ValueError, OverflowError, OSError):
        return None  # another client stored an invalid time


_pages = LimitedLog[_Kind](logger, summary_line=_summary_line, others_line=_others_line)
