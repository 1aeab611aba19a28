"""A preview of many jobs before they are stored: duplicates, and when each page sends its jobs."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from ..ledger import Campaign, Pause, Reader
from ..schemas import NewJob, Settings
from .forecast import Forecast, Load, forecast

_HOUR_MS = 3_600_000
#: Precision of times (ms): a time that is at most the first number ahead is rounded to a multiple
#: of the second number. So at most about 20,000 different times are kept.
_STEPS = ((_HOUR_MS, 1000), (24 * _HOUR_MS, 10_000), (7 * 24 * _HOUR_MS, 300_000))


class Preview:
    """Counts valid jobs. The memory needed depends on the pages and times, not on the jobs.

    Keys are compared by 64-bit hashes, which are kept in a temporary file. Not thread-safe. Must be
    closed.

    Args:
        now_ms: the time (ms since the epoch).
    """

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._seen = SeenKeys()
        self._loads: dict[str, Counter[tuple[int | None, int | None]]] = {}
        #: Number of jobs that would be stored.
        self.job_count = 0
        #: Number of jobs that have the key and the body of an earlier job.
        self.duplicate_count = 0

    def add(self, new: NewJob) -> Literal["new", "duplicate", "conflict"]:
        """Count a job, unless an earlier one has its idempotency key.

        Returns "duplicate" if the earlier job has the same body, "conflict" if it has another.
        """
        if new.idempotency_key is not None:
            occurrence, has_same_body = self._seen.add(new.idempotency_key, new.job)
            if occurrence > 1:
                self.duplicate_count += has_same_body
                return "duplicate" if has_same_body else "conflict"
        self.job_count += 1
        page = self._loads.setdefault(new.job.page_id, Counter())
        page[self._rounded(new.send_at_ms), self._rounded(new.expires_at_ms)] += 1
        return "new"

    def loads_by_page(self, expires_seconds: float) -> dict[str, list[Load]]:
        """Return the messages of each page, if all jobs were stored at once.

        Args:
            expires_seconds: lifetime of a job without a deadline, as in the settings.
        """
        now_ms = self._now_ms
        life_ms = round(expires_seconds * 1000)
        return {
            page_id: [
                Load(count, send_at or 0, expires_at or max(now_ms, send_at or 0) + life_ms)
                for (send_at, expires_at), count in counts.items()
            ]
            for page_id, counts in self._loads.items()
        }

    def _rounded(self, time_ms: int | None) -> int | None:
        """Return the time, rounded down."""
        if time_ms is None:
            return None
        ahead_ms = time_ms - self._now_ms
        step_ms = next((step for limit, step in _STEPS if ahead_ms < limit), _HOUR_MS)
        return time_ms - time_ms % step_ms

    def close(self) -> None:
        """Remove the temporary file."""
        self._seen.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class PagePreview:
    """The outlook of one page, or of all pages of one token together.

    Attributes:
        page_id: the page; or "token:" and the fingerprint of the token, empty if it is not known.
        job_count: number of jobs that would be stored.
        rate: messages per second; 0 means no limit.
        waiting_count: number of other jobs that already wait and are sent first.
        has_token: whether the page has a token; None if it is not known here.
        pauses: the pauses of this page only.
    """

    page_id: str
    job_count: int
    rate: float
    waiting_count: int
    forecast: Forecast
    has_token: bool | None
    pauses: tuple[Pause, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Whether no problem is known that keeps messages from being sent in time."""
        return not (self.forecast.will_expire or self.pauses or self.has_token is False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast of when all jobs are sent at the current rates.

    Attributes:
        pages: the pages with problems first, then by size.
        tokens: the same for all pages of each token, if tokens have a rate (`TOKEN_RATE`).
        pauses: the pauses of all pages, or of all pages of a token.
    """

    pages: list[PagePreview]
    tokens: list[PagePreview]
    pauses: list[Pause]


def look_ahead(
    preview: Preview,
    reader: Reader,
    settings: Settings,
    *,
    campaign: Campaign | None,
    token_of: Callable[[str], str | None] | None,
) -> Outlook:
    """Return a forecast of when all jobs are sent at the current rates.

    Args:
        preview: the preview of the jobs.
        campaign: their campaign, if it is already stored; its jobs do not count as other jobs.
        token_of: a function that returns the fingerprint of a page's token, or None for a page
            without a token. If tokens are not known here, `token_of` is None.

    Raises:
        QueueUnavailable: Redis is not available.
    """
    now_ms = reader.now_ms()
    loads = preview.loads_by_page(settings.expires_seconds)
    rates = {found.page_id: found.rate for found in reader.rates()}
    pauses = reader.pauses_of(*loads)
    waiting = reader.count_waiting(list(loads))
    for page_id, page in (campaign.pages if campaign else {}).items():
        if page_id in waiting:
            waiting[page_id] = max(0, waiting[page_id] - page.waiting)

    def of(
        name: str, page_ids: Collection[str], rate: float, *, has_token: bool | None
    ) -> PagePreview:
        all_loads = [load for page_id in page_ids for load in loads[page_id]]
        waiting_count = sum(waiting[page_id] for page_id in page_ids)
        return PagePreview(
            page_id=name,
            job_count=sum(load.jobs for load in all_loads),
            rate=rate,
            waiting_count=waiting_count,
            forecast=forecast(all_loads, rate=rate, now_ms=now_ms, waiting_count=waiting_count),
            has_token=has_token,
            pauses=tuple(pause for pause in pauses if pause.page_id == name),
        )

    pages, pages_of_tokens = [], defaultdict(list)
    for page_id in loads:
        token = token_of(page_id) if token_of else ""
        has_token = None if token_of is None else token is not None
        rate = rates.get(page_id, settings.page_rate)
        pages.append(of(page_id, [page_id], rate, has_token=has_token))
        if settings.token_rate and token is not None:
            pages_of_tokens[f"token:{token}"].append(page_id)
    return Outlook(
        pages=sorted(pages, key=lambda page: (page.is_fine, -page.job_count)),
        tokens=[
            of(token, page_ids, settings.token_rate, has_token=True)
            for token, page_ids in pages_of_tokens.items()
        ],
        pauses=[pause for pause in pauses if pause.page_id not in loads],
    )


class SeenKeys:
    """Counts the occurrences of keys by 64-bit hashes, in a temporary SQLite file."""

    def __init__(self) -> None:
        # Without a name, SQLite creates a private file without a name. After an error, the garbage
        # collector may close it in another thread.
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
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
