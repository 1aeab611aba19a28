"""`/audit`: what operators did, when, with what, and to how many jobs or pages."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from tornado.web import HTTPError, authenticated

from ...ledger import AUDIT_DAYS
from ...schemas import iso_utc
from .handler import PAGE_SIZE, PageHandler


class AuditHandler(PageHandler):
    """The entries, the latest first."""

    @authenticated
    async def get(self) -> None:
        until = self._until()
        entries = await self.ask(self.site.ledger.reader.audit, PAGE_SIZE + 1, until=until)
        # The first entry that did not fit is where the next page begins.
        after = entries[PAGE_SIZE].at if len(entries) > PAGE_SIZE else None
        self.render(
            "failures_audit.html",
            days=AUDIT_DAYS,
            entries=entries[:PAGE_SIZE],
            is_first=until is None,
            older=iso_utc(after),
        )

    def _until(self) -> datetime | None:
        text = self.text_argument("until")
        if not text:
            return None
        try:
            # Python 3.10 does not read the `Z` of UTC yet.
            until = datetime.fromisoformat(text.replace("Z", "+00:00"))
            until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
            # The ledger counts from the epoch, in milliseconds.
            until.timestamp()
            until - timedelta(days=AUDIT_DAYS)
        except (ValueError, OverflowError):
            raise HTTPError(400, f"until={text} is not a time.") from None
        return until
