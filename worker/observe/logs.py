"""The formats of the worker's log: text or JSON.

Each line about a job has the same extra fields in both formats.
"""

from __future__ import annotations

import copy
import json
import logging
from datetime import datetime, timezone

from ...schemas import iso_utc, sanitize

#: The extra fields that a record may have, from the argument `extra`.
FACTS = ("action", "job_id", "page_id", "error_code", "count", "reason", "until", "waiting_jobs")
#: Maximum characters kept of a line about a job.
_MAX_CHARACTERS = 2000


def format_logs(logger: logging.Logger, log_format: str) -> None:
    """Set the format, "text" or "json", of the logger's handlers, which Celery has added."""
    for handler in logger.handlers:
        if log_format == "json":
            handler.setFormatter(JsonFormatter())
        elif not isinstance(handler.formatter, TextFormatter):
            handler.setFormatter(TextFormatter(handler.formatter))


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON in ASCII, so that control characters are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": iso_utc(datetime.fromtimestamp(record.created, timezone.utc)),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """Appends the extra fields that the message does not contain to another formatter's line."""

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        facts = _facts(record)
        if facts:
            message = record.getMessage()
            left = " ".join(
                f"{name}={fact}"
                for name, fact in facts.items()
                if name == "action" or str(fact) not in message
            )
            record = copy.copy(record)
            # Sanitize the line: another client may have stored a job whose id contains control
            # characters.
            record.msg, record.args = sanitize(f"{message} [{left}]", _MAX_CHARACTERS), ()
        return self._inner.format(record)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts = ((name, getattr(record, name, None)) for name in FACTS)
    return {name: fact for name, fact in facts if fact is not None}
