"""`send --now`: send one message immediately from this process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ...schemas import Outcome, OutcomeClass, Settings, SettingsError, parse_send_job
from ...schemas.error_codes import explain
from ...schemas.language import Language
from ...schemas.redaction import redact
from ..output.printing import print_facts, print_json, shown

#: Maximum number of characters of the reply to print.
_MAX_REPLY_CHARACTERS = 2000


def send_now(settings: Settings, body: Mapping[str, Any], *, as_json: bool) -> int:
    """POST one message, print the outcome, and return the exit status.

    Raises:
        InvalidJob: `body` is invalid.
        SettingsError: no token is set for the page.
    """
    # Imported here: the command line must also work without the worker's dependencies.
    from ...worker.http import Reply, call_once  # noqa: PLC0415
    from ...worker.outcome.classify import classify_failure, classify_reply  # noqa: PLC0415
    from ...worker.tokens import Tokens  # noqa: PLC0415

    job = parse_send_job(dict(body))
    token = Tokens(settings).for_page(job.page_id)
    if token is None:
        raise SettingsError(f"HARASOCIAL_TOKENS_FILE has no token for page {job.page_id}")
    began = time.monotonic()
    ending = call_once(settings, job.body(), token)
    duration_ms = round((time.monotonic() - began) * 1000)
    reply: str | None = None
    if isinstance(ending, Reply):
        outcome = classify_reply(
            ending,
            now=datetime.now(timezone.utc),
            at_most_once=True,
            codes=settings.error_code_classes,
            secret=token,
        )
        if ending.body is not None:
            text = ending.body.decode("utf-8", "replace")
            reply = redact(text, token)[:_MAX_REPLY_CHARACTERS]
    else:
        outcome = classify_failure(ending.kind, ending.detail)
    if as_json:
        print_json(
            {
                "outcome_class": outcome.outcome_class.value,
                "error_code": outcome.error_code,
                "error_message": outcome.error_message,
                "http_status": outcome.http_status,
                "retry_after_seconds": outcome.retry_after_seconds,
                "duration_ms": duration_ms,
                "reply": reply,
            }
        )
    else:
        print_facts(_facts(outcome, reply, duration_ms, settings.language))
    return 0 if outcome.outcome_class is OutcomeClass.ACCEPTED else 1


def _facts(
    outcome: Outcome, reply: str | None, duration_ms: int, language: Language
) -> list[tuple[str, str]]:
    explanation = explain(outcome.error_code, language)
    return [
        ("class", outcome.outcome_class.value),
        ("error code", shown(outcome.error_code)),
        ("error message", shown(outcome.error_message)),
        ("meaning", explanation.meaning if explanation else ""),
        ("what to do", explanation.remedy if explanation else ""),
        ("HTTP status", shown(outcome.http_status)),
        ("took", f"{duration_ms} ms"),
        ("reply", shown(reply)),
    ]
