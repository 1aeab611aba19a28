"""Print one job as text: its body, state, attempts and replays."""

from __future__ import annotations

import click

from ...schemas import Attempt, JobRecord, State
from ...schemas.error_codes import explain, explain_any
from ...schemas.language import Language
from ...schemas.masking import masked
from .printing import NAME, STATE_STYLES, Cell, Column, is_terminal, print_facts, print_table, shown
from .times import local


def print_job(record: JobRecord, language: Language, waiting: str = "") -> None:
    """Print `record`, with only the last digits of the recipient's id.

    `waiting` is the reason why the job waits, or empty.
    """
    print_facts(_facts(record, language, waiting))
    click.echo()
    print_table(
        [Column("time"), Column("event"), Column("what happened", fit="wrap")], _timeline(record)
    )
    if record.state is State.FAILED and is_terminal():
        click.echo(f"to send it again: {NAME} replay {shown(record.job_id)}")


def meaning(record: JobRecord, language: Language) -> str:
    """Return why the job failed: the meaning of its error code, else the API's message."""
    explanation = explain(record.error_code, language)
    return explanation.meaning if explanation else shown(record.error_message)


def _facts(record: JobRecord, language: Language, waiting: str) -> list[tuple[str, str]]:
    body = record.job
    style = STATE_STYLES[record.state]
    explanation = explain_any(record.error_code, language) if record.error_code else None
    # No action is needed while the job is retried or in progress.
    failed = record.state is State.FAILED
    return [
        ("job id", shown(record.job_id)),
        ("state", click.style(record.state.value, fg=style)),
        ("waiting", waiting),
        ("error code", shown(record.error_code)),
        ("error message", shown(record.error_message)),
        ("meaning", explanation.meaning if explanation else ""),
        ("what to do", explanation.remedy if explanation and failed else ""),
        ("HTTP status", shown(record.http_status)),
        ("page", shown(record.page_id)),
        ("recipient", masked(body["recipient"]["id"])),
        ("payload", shown(body["message"]["payload_id"])),
        ("metadata", shown(body.get("metadata"))),
        ("idempotency key", shown(record.idempotency_key)),
        ("delivery", record.delivery.value),
        ("attempts", str(record.attempt_count)),
        ("send at", local(record.send_at)),
        ("next attempt at", local(record.next_attempt_at)),
        ("expires at", local(record.expires_at)),
    ]


def _timeline(record: JobRecord) -> list[list[str | Cell]]:
    events: list[list[str | Cell]] = [[local(record.enqueued_at), "enqueued", ""]]
    # Only the latest attempts are kept. Their numbers count all attempts.
    first = record.first_kept_attempt
    if first > 1 and record.attempts:
        events.append(["", f"attempts 1 to {first - 1}", "not kept"])
    for number, event in record.history():
        if isinstance(event, Attempt):
            events.append([local(event.at), f"attempt {number}", _result(event)])
        else:
            by = f"by {shown(event.by)} ({shown(event.via)})"
            events.append([local(event.at), "replayed", by])
    if record.finished_at is not None:
        ended = Cell(record.state.value, STATE_STYLES[record.state])
        events.append([local(record.finished_at), ended, shown(record.error_code)])
    return events


def _result(attempt: Attempt) -> str:
    reply = f"HTTP {attempt.http_status}" if attempt.http_status is not None else "no reply"
    if attempt.duration_ms is not None:
        reply += f" after {attempt.duration_ms} ms"
    error = ": ".join(
        text for text in (shown(attempt.error_code), shown(attempt.error_message)) if text
    )
    return f"{reply}; {error}" if error else reply
