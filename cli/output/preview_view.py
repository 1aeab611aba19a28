"""Print the preview of a file, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import Any

from ...ledger import ALL_PAGES, Pause
from ...producer.preview import Outlook, PagePreview, Preview
from ...schemas import from_stored, iso_utc
from .pause_view import until_text
from .printing import shown
from .times import duration_text, local

#: Maximum number of pages in the text output; --json prints all of them.
_MAX_PAGES = 20


def preview_lines(preview: Preview, outlook: Outlook, rejected_count: int) -> Iterator[str]:
    """Yield what would be enqueued and sent, as text lines."""
    duplicates = (
        f" ({preview.duplicate_count:,} repeat an earlier row and are not sent again)"
        if preview.duplicate_count
        else ""
    )
    valid_count = preview.job_count + preview.duplicate_count
    yield f"{rows_text(valid_count)} valid{duplicates}, {rejected_count:,} rejected"
    yield from _page_lines(outlook.pages)
    for token in outlook.tokens:
        yield _page_line(token)
    for pause in outlook.pauses:
        what = "all pages are" if pause.page_id == ALL_PAGES else "all pages of a token are"
        yield f"{what} {_paused_text(pause)}"
    if any(page.has_token is None for page in outlook.pages):
        yield "no token is set here, so it was not checked whether each page has one"


def outlook_json(outlook: Outlook) -> dict[str, Any]:
    """Return the JSON fields of the preview."""
    return {
        "pages": [_page_json(page) for page in outlook.pages],
        "tokens": [_page_json(token) for token in outlook.tokens],
        "paused": [pause.reason for pause in outlook.pauses],
    }


def rows_text(count: int) -> str:
    """Return `1 row` or `2,000 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def _page_lines(pages: Sequence[PagePreview]) -> Iterator[str]:
    """Yield a line for each page, and one for each reason why it cannot send."""
    for page in pages[:_MAX_PAGES]:
        yield _page_line(page)
        if page.has_token is False:
            yield (
                "  it has no token: its messages are not sent until HARASOCIAL_TOKENS_FILE or "
                "HARASOCIAL_TOKEN has one"
            )
        for pause in page.pauses:
            yield f"  it is {_paused_text(pause)}"
    if len(pages) > _MAX_PAGES:
        rest = pages[_MAX_PAGES:]
        count = sum(page.job_count for page in rest)
        bad = sum(not page.is_fine for page in rest)
        also = f", {bad:,} of them not fine" if bad else ""
        yield f"and {len(rest):,} more pages with {rows_text(count)}{also} (--json has all)"


def _page_json(page: PagePreview) -> dict[str, Any]:
    """Return the JSON object of a page."""
    return {
        "page_id": page.page_id,
        "rows": page.job_count,
        "rate": page.rate,
        "waiting": page.waiting_count,
        "sending_seconds": round(page.forecast.sending_seconds, 3),
        "ends_at": iso_utc(from_stored(page.forecast.ends_at_ms)),
        "will_expire": page.forecast.will_expire,
        "has_token": page.has_token,
        "paused": [pause.reason for pause in page.pauses],
    }


def _page_line(page: PagePreview) -> str:
    expiring = page.forecast.will_expire
    in_time = (
        f"{expiring:,} will expire: raise the rate or the deadline"
        if expiring
        else "all end before their deadline"
    )
    of_token = page.page_id.startswith("token:")
    text = f"{'all pages of a token' if of_token else f'page {page.page_id}'}: "
    if not page.rate:
        return f"{text}{rows_text(page.job_count)}, no limit to the rate; {in_time}"
    takes = duration_text(page.forecast.sending_seconds)
    verb = "takes" if page.job_count == 1 else "take"
    text += f"{rows_text(page.job_count)} at {page.rate:g}/s {verb} {takes}"
    if page.waiting_count:
        text += f", after {page.waiting_count:,} that wait already"
    if page.job_count > expiring:
        text += f" (until {local(from_stored(page.forecast.ends_at_ms))})"
    return f"{text}; {in_time}"


def _paused_text(pause: Pause) -> str:
    until = until_text(pause, datetime.now(timezone.utc))
    return f"paused now ({shown(pause.reason)}) until {until}"
