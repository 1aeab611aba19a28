"""`/audit`: the actions of operators, the latest first."""

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
        # One more entry than shown: the next page begins with it.
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
            # Python 3.10 does not parse the suffix `Z`.
            until = datetime.fromisoformat(text.replace("Z", "+00:00"))
            until = until if until.tzinfo else until.replace(tzinfo=timezone.utc)
            # The ledger needs milliseconds since the epoch.
            until.timestamp()
            until - timedelta(days=AUDIT_DAYS)
        except (ValueError, OverflowError):
            raise HTTPError(400, f"until={text} is not a time.") from None
        return until
