"""The audit: what operators did to jobs and pages, when, by what means, and to how many.

An entry is written by the script that makes the change, so neither happens without the other. An
operation of several calls (a replay of thousands of jobs) has one entry, whose `count` each call
increases: if it stops half-way, the entry has what was done until then.

An entry has no personal id and no token: a job is named by its id, a text that was searched for is
left out.
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

#: How long an entry is kept, in days; and the maximum number of entries. See lua/transitions.lua.
AUDIT_DAYS = 90
AUDIT_ENTRIES = 10_000

#: What a change was made with.
Via = Literal["cli", "flower", "python", "worker"]

#: Characters kept of each text of an entry, and of the name of this process's user.
_MAX_CHARACTERS, _MAX_USER_CHARACTERS = 200, 100


def local_user() -> str:
    """Return who runs this process, as `user@host`."""
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
        by: who did it: `user@host` (this process's, by default), or the login at Flower.
        via: "cli", "flower", "python" or "worker" (a rule of a campaign); another text if another
            client wrote the entry.
        count: jobs or pages that were changed; 0 in an entry that is yet to be written.
        at: when it began, by the ledger's clock; None in an entry that is yet to be written.
        page_id, campaign, reason: what was changed and why, where that applies.
        filter: which jobs were selected, as in JSON; without personal ids.
        details: further facts, such as `{"rate": 20.0}`.
        operation_id: the calls with one id are one operation.
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
        """Return the JSON text that a script stores, with the time and the count added to it."""
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
        # An empty list would come back from Lua as an empty object.
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
