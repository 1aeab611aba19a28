"""Find jobs by their values, and explain a mismatch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..schemas import JobRecord

#: Maximum jobs in a message. These are the latest ones.
_MAX_LISTED = 20


def fields_of(job: JobRecord) -> dict[str, Any]:
    """Return the values of a job that a test can match."""
    return {
        "page_id": job.page_id,
        "recipient_id": job.job.get("recipient", {}).get("id"),
        "payload_id": job.job.get("message", {}).get("payload_id"),
        "metadata": job.job.get("metadata"),
        "idempotency_key": job.idempotency_key,
        "campaign": job.campaign,
    }


def matching(jobs: Sequence[JobRecord], wanted: Mapping[str, str]) -> list[JobRecord]:
    """Return the jobs that have all values in `wanted`."""
    return [job for job in jobs if not _differences(job, wanted)]


def explain_mismatch(
    jobs: Sequence[JobRecord], wanted: Mapping[str, str], *, found: int, count: int | None
) -> str:
    """Return a message with what was expected, and the jobs that were enqueued.

    Args:
        found: the number of jobs that have all values in `wanted`.
        count: the expected number of such jobs; None for at least one.
    """
    expected = "at least 1 message" if count is None else _messages(count)
    condition = f" with {_text(wanted)}" if wanted else ""
    lines = [f"expected {expected}{condition}; {found} of {_messages(len(jobs))} enqueued match"]
    if len(jobs) > _MAX_LISTED:
        lines.append(f"  … {len(jobs) - _MAX_LISTED} earlier ones")
    for job in jobs[-_MAX_LISTED:]:
        different = _differences(job, wanted)
        note = f"   <- differs in {', '.join(different)}" if different else ""
        values = {name: value for name, value in fields_of(job).items() if value is not None}
        lines.append(f"  {_text(values)} ({job.state}){note}")
    return "\n".join(lines)


def _differences(job: JobRecord, wanted: Mapping[str, str]) -> list[str]:
    fields = fields_of(job)
    return [name for name, value in wanted.items() if fields[name] != value]


def _messages(count: int) -> str:
    return f"{count} message{'' if count == 1 else 's'}"


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())
