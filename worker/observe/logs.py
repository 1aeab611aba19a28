"""What a line of the worker's log looks like: text for people, or JSON for programs.

Each line that tells of a job has the same facts in fields of their own, whatever its words are.
"""

from __future__ import annotations

import copy
import json
import logging
from datetime import datetime, timezone

from ...schemas import iso_utc, sanitize

#: The fields that a record may have, given as `extra` where it is logged.
FACTS = ("action", "job_id", "page_id", "error_code", "count", "reason", "until", "waiting_jobs")
#: Characters kept of a line that tells of a job.
_MAX_CHARACTERS = 2000


def format_logs(logger: logging.Logger, log_format: str) -> None:
    """Have the logger's handlers write in a format, "text" or "json"; Celery set them up before."""
    for handler in logger.handlers:
        if log_format == "json":
            handler.setFormatter(JsonFormatter())
        elif not isinstance(handler.formatter, TextFormatter):
            handler.setFormatter(TextFormatter(handler.formatter))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: nothing in a message can break the line, or act."""

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
    """Another formatter's lines, with the facts that the message itself does not tell."""

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
            # Other hands may have put a job into Redis whose very id acts in a terminal.
            record.msg, record.args = sanitize(f"{message} [{left}]", _MAX_CHARACTERS), ()
        return self._inner.format(record)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    facts = ((name, getattr(record, name, None)) for name in FACTS)
    return {name: fact for name, fact in facts if fact is not None}
