"""`/audit`: the actions of operators, the latest first."""

from __future__ import annotations

from tornado.web import authenticated

from ...ledger import ALL_PAGES, AUDIT_DAYS
from ...schemas import iso_utc
from .handler import PAGE_SIZE, PageHandler


class AuditHandler(PageHandler):
    """The entries, the latest first."""

    @authenticated
    async def get(self) -> None:
        until = self.time_argument("until")
        entries = await self.ask(self.site.ledger.reader.audit, PAGE_SIZE + 1, until=until)
        # One more entry than shown: the next page begins with it.
        after = entries[PAGE_SIZE].at if len(entries) > PAGE_SIZE else None
        self.render(
            "failures_audit.html",
            all_pages=ALL_PAGES,
            days=AUDIT_DAYS,
            entries=entries[:PAGE_SIZE],
            is_first=until is None,
            older=iso_utc(after),
        )
