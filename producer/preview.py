"""A look at many jobs before any is stored: duplicates, and when each page would send its jobs."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..ledger import ALL_PAGES, Campaign, Pause, Reader
from ..schemas import NewJob, Settings
from .forecast import Forecast, Load, forecast

#: Times of jobs are counted by the minute, so that few different ones are held.
_MINUTE_MS = 60_000


class Preview:
    """Counts valid jobs in the memory that their pages and times need, however many there are.

    Keys are compared by hashes of 64 bits, which are kept in a temporary file. Not to be shared
    between threads; close it.
    """

    def __init__(self) -> None:
        self._seen = SeenKeys()
        self._loads: dict[str, Counter[tuple[int | None, int | None]]] = {}
        #: Jobs that would be stored.
        self.job_count = 0
        #: Jobs whose key, and body, an earlier one has.
        self.duplicate_count = 0

    def add(self, new: NewJob) -> Literal["new", "duplicate", "conflict"]:
        """Count a job, unless an earlier one has its idempotency key.

        Returns "duplicate" if the earlier one has the same body too, "conflict" if it has another.
        """
        if new.idempotency_key is not None:
            occurrence, has_same_body = self._seen.add(new.idempotency_key, new.job)
            if occurrence > 1:
                self.duplicate_count += has_same_body
                return "duplicate" if has_same_body else "conflict"
        self.job_count += 1
        page = self._loads.setdefault(new.job.page_id, Counter())
        page[_minute(new.send_at_ms), _minute(new.expires_at_ms)] += 1
        return "new"

    def loads_by_page(self, *, now_ms: int, expires_seconds: float) -> dict[str, list[Load]]:
        """Return what each page would send.

        Args:
            now_ms: when the jobs are stored (ms since the epoch).
            expires_seconds: how long a job without a deadline lives, as in the settings.
        """
        life_ms = round(expires_seconds * 1000)
        return {
            page_id: [
                Load(count, send_at or 0, expires_at or max(now_ms, send_at or 0) + life_ms)
                for (send_at, expires_at), count in counts.items()
            ]
            for page_id, counts in self._loads.items()
        }

    def close(self) -> None:
        """Remove the temporary file."""
        self._seen.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePreview:
    """What one page would send.

    Attributes:
        job_count: jobs that would be stored.
        rate: messages a second that the page may send now; 0 is no limit.
        waiting_count: the page's jobs that wait already, and go before them.
        has_token: None if that is not known here.
        pauses: what holds up the page now.
    """

    page_id: str
    job_count: int
    rate: float
    waiting_count: int
    forecast: Forecast
    has_token: bool | None
    pauses: tuple[Pause, ...]

    @property
    def is_fine(self) -> bool:
        """Whether all messages can be sent before their deadlines, as far as can be told."""
        return not (self.forecast.will_expire or self.pauses or self.has_token is False)


def preview_pages(
    preview: Preview,
    reader: Reader,
    settings: Settings,
    *,
    campaign: Campaign | None,
    has_token: Callable[[str], bool | None],
) -> list[PagePreview]:
    """Return what each page would send at today's rates: first pages that are not fine, then large.

    Args:
        preview: of the jobs.
        campaign: what is stored of their campaign already; those jobs do not go before them.
        has_token: tells whether a page has a token; None if that is not known.

    Raises:
        QueueUnavailable: Redis is away.
    """
    now_ms = reader.now_ms()
    loads = preview.loads_by_page(now_ms=now_ms, expires_seconds=settings.expires_seconds)
    rates = {found.page_id: found.rate for found in reader.rates()}
    waiting = reader.count_waiting(list(loads))
    pauses = reader.pauses()
    own = campaign.pages if campaign else {}
    previews = []
    for page_id, of_page in loads.items():
        rate = rates.get(page_id, settings.page_rate)
        others = waiting[page_id] - (own[page_id].waiting if page_id in own else 0)
        waiting_count = max(0, others)
        previews.append(
            PagePreview(
                page_id=page_id,
                job_count=sum(load.jobs for load in of_page),
                rate=rate,
                waiting_count=waiting_count,
                forecast=forecast(of_page, rate=rate, now_ms=now_ms, waiting_count=waiting_count),
                has_token=has_token(page_id),
                pauses=tuple(pause for pause in pauses if pause.page_id in (page_id, ALL_PAGES)),
            )
        )
    return sorted(previews, key=lambda page: (page.is_fine, -page.job_count))


class SeenKeys:
    """Which keys have occurred, and how often: 64 bits of each, in a temporary file of SQLite."""

    def __init__(self) -> None:
        # Without a name, SQLite makes a private file that has no name either.
        self._connection = sqlite3.connect("", isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "PRAGMA cache_size = -16384",  # KiB
            "CREATE TABLE seen (key INTEGER PRIMARY KEY, body INTEGER, count INTEGER)",
            "BEGIN",
        ):
            self._connection.execute(statement)
        self._cursor = self._connection.cursor()

    def add(self, key: str, body: object = None) -> tuple[int, bool]:
        """Count an occurrence of `key`.

        Returns its number, from 1, and whether the first one had the same `body` (hashable).
        """
        hashes = (hash(key), hash(body))
        execute = self._cursor.execute
        if execute("INSERT OR IGNORE INTO seen VALUES (?, ?, 1)", hashes).rowcount:
            return 1, True
        execute("UPDATE seen SET count = count + 1 WHERE key = ?", hashes[:1])
        body_hash, count = execute(
            "SELECT body, count FROM seen WHERE key = ?", hashes[:1]
        ).fetchone()
        return count, body_hash == hashes[1]

    def close(self) -> None:
        """Remove the temporary file."""
        self._connection.close()


def _minute(time_ms: int | None) -> int | None:
    return None if time_ms is None else time_ms - time_ms % _MINUTE_MS
