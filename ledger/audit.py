"""The audit: a record of the operators' changes to jobs and pages.

The script that makes a change also writes its entry, so neither happens without the other. An
operation of several calls (a replay of thousands of jobs) has one entry, and each call increases
its `count`. If the operation stops early, the entry counts what was done.

An entry contains no personal id and no token. It identifies a job by the job's id, and omits the
text of a search.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from ..schemas import from_ms, iso_utc, sanitize
from .job_hash import to_int

#: How long an entry is kept (days), and the maximum number of entries; see lua/shared/audit.lua.
AUDIT_DAYS = 90
AUDIT_ENTRIES = 10_000

#: The interfaces with which changes are made.
Via = Literal["cli", "flower", "python", "worker"]

#: Maximum lengths (characters) of a text in an entry, and of the name of this process's user.
_MAX_CHARACTERS, _MAX_USER_CHARACTERS = 200, 100


def local_user() -> str:
    """Return the user of this process, as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container, the user id may have no name.
        user = str(os.getuid())
    return sanitize(f"{user}@{socket.gethostname()}", _MAX_USER_CHARACTERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One operation.

    Attributes:
        action: "replay", "cancel", "pause", "resume", "rate", "hold" or "release".
        by: who did it: `user@host` (of this process by default), or the login in Flower.
        via: "cli", "flower", "python" or "worker" (a rule of a campaign). It may be another text
            if another client wrote the entry.
        count: number of changed jobs or pages; 0 in an entry that is not written yet.
        at: when it began, by the ledger's clock; None in an entry that is not written yet.
        page_id, campaign, reason: what was changed and why, if that applies.
        filter: the filter that selected the jobs, as in JSON; without personal ids.
        details: more facts, such as `{"rate": 20.0}`.
        operation_id: calls with the same id belong to one operation.
    """

    action: str
    by: str = field(default_factory=local_user)
    via: Via | str = "python"
    count: int = 0
    at: datetime | None = None
    page_id: str | None = None
    campaign: str | None = None
    reason: str | None = None
    filter: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    operation_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object that `audit --json` prints."""
        return {
            "at": iso_utc(self.at),
            "action": self.action,
            "by": self.by,
            "via": self.via,
            "count": self.count,
            "page_id": self.page_id,
            "campaign": self.campaign,
            "reason": self.reason,
            "filter": self.filter,
            "details": dict(self.details),
        }

    def stored_text(self) -> str:
        """Return the JSON text of the entry; a script adds the time and the count."""
        texts = {
            "action": self.action,
            "by": self.by,
            "via": self.via,
            "page_id": self.page_id,
            "campaign": self.campaign,
            "reason": self.reason,
        }
        facts: dict[str, Any] = {
            name: sanitize(text, _MAX_CHARACTERS) for name, text in texts.items() if text
        }
        # Lua would return an empty list as an empty object.
        if self.filter:
            facts["filter"] = dict(self.filter)
        if self.details:
            facts["details"] = dict(self.details)
        return json.dumps(facts, ensure_ascii=False)


def to_entry(operation_id: str, text: str) -> AuditEntry | None:
    """Return the stored entry, or None if another client wrote something else."""
    try:
        stored = json.loads(text)
        return AuditEntry(
            operation_id=operation_id,
            action=_text(stored["action"]) or "",
            by=_text(stored["by"]) or "",
            via=_text(stored["via"]) or "",
            count=to_int(stored.get("count")) or 0,
            at=from_ms(int(stored["at_ms"])),
            page_id=_text(stored.get("page_id")),
            campaign=_text(stored.get("campaign")),
            reason=_text(stored.get("reason")),
            filter=_mapping(stored.get("filter")),
            details=_mapping(stored.get("details")) or {},
        )
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return None


def _text(value: object) -> str | None:
    return None if value is None else sanitize(str(value), _MAX_CHARACTERS)


def _mapping(value: object) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None
