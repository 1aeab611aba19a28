"""The pauses of pages, and pages with their own rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..job_hash import to_int, to_object
from .lanes import count_waiting, waiting_by_page
from .namespace import Namespace, chunks

#: The `page_id` of a pause that applies to all pages.
ALL_PAGES = "*"
#: The `reason` of a pause by an operator.
MANUAL = "manual"
#: The `reason` of a pause that applies to all pages of a token.
APP_THROTTLED = "app_throttled"
#: Number of entries that are read at once: about 1 ms of the server's time.
_ENTRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause of a page. Times are milliseconds since the epoch.

    Attributes:
        page_id: the page; `ALL_PAGES`; or, if the reason is APP_THROTTLED, "token:" and the
            fingerprint of the token whose pages are paused.
        reason: MANUAL, or why the worker paused it: APP_THROTTLED, auth, failing, refused,
            restricted or throttled.
        error_code: of the reply that caused the pause.
        until_ms: None if an operator has to resume it. If the time has passed, the page's next job
            is a probe.
        token_fingerprint: of the refused or throttled token.
        note: the operator's reason; it may be empty.
        by: the operator; None for an automatic pause.
        since_ms: when it began; None if unknown.
        waiting: jobs in the page's lane; 0 if they were not counted.
    """

    page_id: str
    reason: str
    until_ms: int | None
    error_code: str | None = None
    token_fingerprint: str = ""
    note: str = ""
    by: str | None = None
    since_ms: int | None = None
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRate:
    """A page's own rate: messages per second (0 means no limit), and its burst.

    `at_ms` is when it was set (milliseconds since the epoch).
    """

    page_id: str
    rate: float
    burst: int
    by: str
    at_ms: int


def pauses(namespace: Namespace) -> list[Pause]:
    """Return all pauses, with the number of jobs that wait; see `Reader.pauses`."""
    found: dict[tuple[str, str], Pause] = {}
    cursor = 0
    while True:
        some, cursor = some_pauses(namespace, cursor)
        # Redis may return one twice.
        found |= {(pause.page_id, pause.reason): pause for pause in some}
        if cursor == 0:
            break
    waiting = count_waiting(namespace, dict.fromkeys(page_id for page_id, _ in found))
    paused = [replace(pause, waiting=waiting[pause.page_id]) for pause in found.values()]
    paused = [*token_pauses(namespace), *paused]
    everything = pause_of_all(namespace)
    if everything is None:
        return paused
    return [replace(everything, waiting=sum(waiting_by_page(namespace).values())), *paused]


def some_pauses(namespace: Namespace, cursor: int) -> tuple[list[Pause], int]:
    """Return the pauses of about a thousand pages, and the cursor to continue at; 0 at the end."""
    cursor, some = namespace.client.hscan(namespace.key("pauses"), cursor, count=_ENTRIES)
    return [pause for page_id, text in some.items() for pause in _parse(page_id, text)], int(cursor)


def pauses_of(namespace: Namespace, *page_ids: str) -> list[Pause]:
    """Return the pauses that apply to some pages; see `Reader.pauses_of`."""
    own: list[Pause] = []
    tokens: set[str | None] = set()
    for some in chunks(page_ids, _ENTRIES):
        texts = namespace.client.hmget(namespace.key("pauses"), some)
        for page_id, text in zip(some, texts, strict=True):
            own += _parse(page_id, text) if text else ()
        tokens.update(namespace.client.hmget(namespace.key("page_tokens"), some))
    everything = pause_of_all(namespace)
    # Only workers know the default token, which pages without their own token use.
    of_token = [
        pause
        for pause in token_pauses(namespace)
        if None in tokens or pause.token_fingerprint in tokens
    ]
    return [*([everything] if everything else []), *own, *of_token]


def token_pauses(namespace: Namespace) -> list[Pause]:
    """Return the pauses of tokens; each applies to all pages of its token."""
    found = namespace.client.hscan_iter(namespace.key("tokens"), count=_ENTRIES)
    by_token = {token: pause for token, text in found for pause in _parse(f"token:{token}", text)}
    return [replace(pause, token_fingerprint=token) for token, pause in sorted(by_token.items())]


def pause_of_all(namespace: Namespace) -> Pause | None:
    """Return the pause of all pages, or None if there is none."""
    text = namespace.client.get(namespace.key("paused_all"))
    if text is None:
        return None
    # Any value of this key pauses all pages.
    return _manual(ALL_PAGES, to_object(text))


def rates(namespace: Namespace) -> list[PageRate]:
    """Return the pages with their own rate, ordered by page."""
    found = namespace.client.hscan_iter(namespace.key("rates"), count=_ENTRIES)
    by_page = {page_id: _rate(page_id, text) for page_id, text in found}
    return [rate for _, rate in sorted(by_page.items()) if rate]


def _parse(page_id: str, text: str) -> Iterator[Pause]:
    found = to_object(text)
    if isinstance(found.get("manual"), dict):
        yield _manual(page_id, found["manual"])
    if (to_int(found.get("level")) or 0) < 1 or "reason" not in found:
        return
    until_ms = to_int(found.get("until_ms"))
    if until_ms is not None:
        yield Pause(
            page_id=page_id,
            reason=str(found["reason"]),
            error_code=found.get("error_code") or None,
            until_ms=until_ms,
            token_fingerprint=str(found.get("token_fingerprint") or ""),
            since_ms=to_int(found.get("since_ms")) or None,
        )


def _manual(page_id: str, found: dict[str, Any]) -> Pause:
    return Pause(
        page_id=page_id,
        reason=MANUAL,
        note=str(found.get("reason") or ""),
        by=str(found.get("by") or ""),
        since_ms=to_int(found.get("at_ms")) or None,
        until_ms=to_int(found.get("until_ms")),
    )


def _rate(page_id: str, text: str) -> PageRate | None:
    found = to_object(text)
    try:
        return PageRate(
            page_id=page_id,
            rate=float(found["rate"]),
            burst=int(found["burst"]),
            by=str(found.get("by") or ""),
            at_ms=to_int(found.get("at_ms")) or 0,
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None  # written by another client
