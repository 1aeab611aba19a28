"""The ledger: every job's state in Redis. One class over a few Lua scripts, and the doorbell.

Redis is touched in this folder alone.
"""

from .broker_message import DISPATCH_TASK
from .claim import Claim
from .doorbell import Doorbell
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
from .separate_celery import SeparateCelery, impatient_transport, queue_name

__all__ = [
    "DISPATCH_TASK",
    "MAX_VALUES",
    "Claim",
    "Claimed",
    "Counts",
    "Cursor",
    "Doorbell",
    "Enqueued",
    "EnqueuedJob",
    "JobFilter",
    "JobPage",
    "JobStatus",
    "Ledger",
    "Pause",
    "Reader",
    "Result",
    "SeparateCelery",
    "Swept",
    "impatient_transport",
    "queue_name",
]
