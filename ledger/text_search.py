"""Looking for a text in a job: in whatever a person may know of it."""

from __future__ import annotations

from ..schemas import JobRecord


def has_text(record: JobRecord, text: str) -> bool:
    """Return whether ids, error, payload, metadata or key have the text, whatever its case."""
    if not text:
        return True
    wanted = text.casefold()
    body = record.job
    places = (
        record.job_id,
        record.page_id,
        record.error_code,
        record.error_message,
        record.idempotency_key,
        body["recipient"]["id"],
        body["message"]["payload_id"],
        body.get("metadata"),
    )
    return any(wanted in place.casefold() for place in places if place)
