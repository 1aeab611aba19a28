"""Read the audit, the latest entries first."""

from __future__ import annotations

from datetime import timedelta

from ..audit import AUDIT_DAYS, AuditEntry, to_entry
from .namespace import CHUNK, Namespace, chunks

_KEPT_MS = timedelta(days=AUDIT_DAYS) // timedelta(milliseconds=1)


def audit(
    namespace: Namespace, limit: int, since_ms: int | None, until_ms: int | None
) -> list[AuditEntry]:
    """Return at most `limit` entries, the latest first; see `Reader.audit`."""
    # Older entries are deleted only when new ones are written.
    earliest_ms = max(since_ms or 0, namespace.now_ms() - _KEPT_MS)
    ids = namespace.client.zrevrangebyscore(
        namespace.key("audit"),
        "+inf" if until_ms is None else f"({until_ms + 1}",  # scores have a fraction
        earliest_ms,
        0,
        limit,
    )
    found: list[AuditEntry] = []
    for some in chunks(ids, CHUNK):
        texts = namespace.client.hmget(namespace.key("audit_entries"), some)
        entries = (to_entry(i, text) for i, text in zip(some, texts, strict=True) if text)
        found += [entry for entry in entries if entry is not None]
    return found
