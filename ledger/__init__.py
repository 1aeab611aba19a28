"""The ledger: every job's state in Redis. One class over a few Lua scripts, and the doorbell.

Redis is touched in this folder alone.
"""

from .doorbell import DISPATCH_TASK, Doorbell, broker_url, queue_name
from .job_hash import Claim
from .ledger import Claimed, Enqueued, Ledger, Result, Swept, UnknownOutcome
from .lookup import Lookup, Pause

__all__ = [
    "DISPATCH_TASK",
    "Claim",
    "Claimed",
    "Doorbell",
    "Enqueued",
    "Ledger",
    "Lookup",
    "Pause",
    "Result",
    "Swept",
    "UnknownOutcome",
    "broker_url",
    "queue_name",
]
