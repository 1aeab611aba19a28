"""Format untrusted values for the pages. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from html import escape

from ..ledger import APP_THROTTLED, MANUAL, AuditEntry, Pause
from ..schemas import Attempt, JobRecord, State, from_stored, iso_utc, sanitize
from ..schemas.language import Language
from ..schemas.masking import masked
from ..schemas.pause_reasons import PAUSE_REASONS

#: Bootstrap's color of each state's badge.
STATE_COLORS = {
    State.SCHEDULED: "secondary",
    State.QUEUED: "secondary",
    State.SENDING: "info",
    State.RETRYING: "warning",
    State.SENT: "success",
    State.FAILED: "danger",
    State.CANCELLED: "secondary",
}
#: An error code at the beginning of a Facebook message.
_CODE_IN_MESSAGE = re.compile(r"\(#([0-9/]+)\) *")
#: Maximum length of a value in a list.
_MAX_CHARACTERS = 500


def shown(value: object) -> str:
    """Return a value as one line without control characters (not HTML-escaped); "" for None."""
    return "" if value is None else sanitize(str(value), _MAX_CHARACTERS)


def error_message(failed: JobRecord | Attempt) -> str:
    """Return an error's message in one line, without a leading error code.

    The pages show the code before the message, and Facebook's messages begin with it: `(#10) …`.
    """
    message, code = shown(failed.error_message), shown(failed.error_code)
    if match := _CODE_IN_MESSAGE.match(message):
        found = match.group(1)
        if code == found or code.startswith(f"{found}/"):
            return message[match.end() :]
    return message.removeprefix(f"{code}: ")


def number(value: int) -> str:
    """Return a count with thousands separators: 12,345."""
    return f"{value:,}"


def jobs(count: int) -> str:
    """Return a count of jobs as text: `1 job` or `2 jobs`."""
    return "1 job" if count == 1 else f"{number(count)} jobs"


def pause_target(pause: Pause) -> str:
    """Return what a pause applies to, as text (not HTML-escaped)."""
    if pause.reason == APP_THROTTLED:
        return f"All pages of the token {shown(pause.token_fingerprint)}"
    return f"Page {shown(pause.page_id)}"


def pause_reason(pause: Pause, language: Language) -> str:
    """Return why a page is paused, as text (not HTML-escaped)."""
    if pause.reason == MANUAL:
        return f"by {shown(pause.by)}" + (f": {shown(pause.note)}" if pause.note else "")
    texts = PAUSE_REASONS.get(pause.reason)
    reason = texts[language].meaning.rstrip(".") if texts else shown(pause.reason)
    return f"{reason} ({shown(pause.error_code)})" if pause.error_code else reason


def pause_remedy(pause: Pause, language: Language) -> str:
    """Return the remedy for a pause by the worker; "" for a pause by an operator."""
    texts = PAUSE_REASONS.get(pause.reason)
    return texts[language].remedy if texts else ""


def rate_text(rate: float) -> str:
    """Return a rate in messages per second as text; 0 means no limit."""
    return f"{rate:g}" if rate else "no limit"


def facts(entry: AuditEntry) -> str:
    """Return the jobs of an audit entry, and its details, in one line."""
    parts = []
    for name, value in [*(entry.filter or {}).items(), *entry.details.items()]:
        values = value if isinstance(value, list) else [value]
        parts.append(f"{name} {', '.join(map(shown, values))}")
    return shown("; ".join(parts))


def time_html(time: datetime | None) -> str:
    """Return a time as HTML, in UTC. The page's script converts it to local time."""
    if time is None:
        return ""
    text = time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f'<time datetime="{escape(iso_utc(time) or "")}">{text}</time>'


def stored_time_html(milliseconds: int | None) -> str:
    """Return a time read from Redis as HTML; "" if it is outside the calendar."""
    return time_html(from_stored(milliseconds))


def duration(milliseconds: float | None) -> str:
    """Return a duration as text."""
    if milliseconds is None:
        return ""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    return str(timedelta(seconds=round(milliseconds / 1000)))


def body_text(record: JobRecord, *, with_recipient: bool) -> str:
    """Return the body as indented JSON. The recipient's id is masked unless it is requested."""
    body = json.loads(json.dumps(record.job))
    if not with_recipient:
        body["recipient"]["id"] = masked(body["recipient"]["id"])
    # Escape non-printable characters and those that change the text direction.
    text = json.dumps(body, indent=2, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)
