"""The ledger: every job's state in Redis. One class over a few Lua scripts.

Only the modules in this folder access Redis.
"""

from __future__ import annotations

from .audit import AUDIT_DAYS, AUDIT_ENTRIES, AuditEntry, Via, local_user
from .bulk_cancel import CANCELABLE, CanceledJobs
from .claim import Claim
from .exchange import Claimed, Enqueued, EnqueuedJob, PageChange, Result, Swept
from .ledger import Ledger, Lifted
from .reading import (
    ALL_PAGES,
    APP_THROTTLED,
    MANUAL,
    MAX_VALUES,
    Campaign,
    CampaignPage,
    Counts,
    Cursor,
    Hold,
    JobFilter,
    JobPage,
    Minute,
    PageRate,
    Pause,
    Reader,
    WatchedCampaign,
)
from .replay_store import StoredReplay

__all__ = [
    "ALL_PAGES",
    "APP_THROTTLED",
    "AUDIT_DAYS",
    "AUDIT_ENTRIES",
    "CANCELABLE",
    "MANUAL",
    "MAX_VALUES",
    "AuditEntry",
    "Campaign",
    "CampaignPage",
    "CanceledJobs",
    "Claim",
    "Claimed",
    "Counts",
    "Cursor",
    "Enqueued",
    "EnqueuedJob",
    "Hold",
    "JobFilter",
    "JobPage",
    "Ledger",
    "Lifted",
    "Minute",
    "PageChange",
    "PageRate",
    "Pause",
    "Reader",
    "Result",
    "StoredReplay",
    "Swept",
    "Via",
    "WatchedCampaign",
    "local_user",
]
