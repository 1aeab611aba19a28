"""The ledger: every job's state in Redis. One class over a few Lua scripts, and the doorbell.

Redis is touched in this folder alone.
"""

from .broker_message import DISPATCH_TASK
from .claim import Claim
from .doorbell import Doorbell
from .exchange import Claimed, Enqueued, EnqueuedJob, Result, Swept, UnknownOutcome, Unsent
from .failure_counts import Counts
from .failures import FailurePage, Failures
from .index_page import Cursor
from .ledger import Ledger
from .lookup import Lookup, Pause
from .search import MAX_VALUES, JobFilter
from .separate_celery import SeparateCelery, impatient_transport, queue_name
from .waiting import Waiting, WaitingPage

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
    "FailurePage",
    "Failures",
    "JobFilter",
    "Ledger",
    "Lookup",
    "Pause",
    "Result",
    "SeparateCelery",
    "Swept",
    "UnknownOutcome",
    "Unsent",
    "Waiting",
    "WaitingPage",
    "impatient_transport",
    "queue_name",
]
