"""The ledger: every job's state in Redis. One class over a few Lua scripts.

Redis is touched in this folder alone.
"""

from .claim import Claim
from .exchange import Claimed, Enqueued, EnqueuedJob, Result, Swept
from .ledger import Ledger
from .reading import (
    MAX_VALUES,
    Counts,
    Cursor,
    JobFilter,
    JobPage,
    JobStatus,
    Pause,
    Reader,
)

__all__ = [
    "MAX_VALUES",
    "Claim",
    "Claimed",
    "Counts",
    "Cursor",
    "Enqueued",
    "EnqueuedJob",
    "JobFilter",
    "JobPage",
    "JobStatus",
    "Ledger",
    "Pause",
    "Reader",
    "Result",
    "Swept",
]
