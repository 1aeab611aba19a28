"""Jobs that wait for their time, in pages: for a retry, or for their `send_at`."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from ..schemas import JobRecord, State
from .connection import translated_errors
from .index_page import Place, read_ids
from .scripts import Scripts
from .search import Search

#: Jobs that one page may read: those in other states are left out.
_READ = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPage:
    """Some waiting jobs, those due first coming first; `after` is None if nothing comes."""

    records: list[JobRecord]
    after: Place | None


class Waiting:
    """The waiting jobs of one ledger."""

    def __init__(
        self, client: redis.Redis, prefix: str, redis_url: str, scripts: Scripts
    ) -> None:
        self._url = redis_url
        self._scripts = scripts
        self._search = Search(client, prefix)

    def page(self, state: State, *, after: Place | None = None, limit: int = 50) -> WaitingPage:
        """Return at most `limit` jobs of a state, RETRYING or SCHEDULED, after a place.

        Raises:
            QueueUnavailable: Redis did not do it.
        """
        found: list[JobRecord] = []
        looked_at = 0
        with translated_errors(self._url):
            while True:
                ids = read_ids(
                    self._scripts,
                    ["due"],
                    after=after,
                    falling=False,
                    limit=limit - len(found),
                    budget=_READ - looked_at,
                )
                looked_at += ids.looked_at
                found += (r for r in self._search.records(ids.ids) if r.state is state)
                after = ids.after
                if after is None or len(found) >= limit or looked_at >= _READ:
                    return WaitingPage(records=found, after=after)
