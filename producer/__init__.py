"""What a web app imports: enqueue, look up, replay, cancel.

    from harasocial_dispatch.producer import enqueue

    job_id = enqueue({"recipient": {"id": "2560816460648749"},
                      "message": {"payload_id": "__hrf_f_…"},
                      "page_id": "500725830264749"},
                     idempotency_key="order-1001-paid")

The functions are the methods of one `Producer`, made from the environment when the first of them is
asked for (as the line above does); make your own `Producer(settings)` where settings come from
elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..schemas import (
    AmbiguousJobId,
    DispatchError,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    JobRecord,
    QueueUnavailable,
    Settings,
    SettingsError,
    State,
)
from .batch import EnqueueReport, Rejected
from .producer import Producer

__all__ = [
    "AmbiguousJobId",
    "DispatchError",
    "EnqueueReport",
    "EnqueueUnknown",
    "IdempotencyConflict",
    "InvalidJob",
    "JobNotFound",
    "JobRecord",
    "Producer",
    "QueueUnavailable",
    "Rejected",
    "Settings",
    "SettingsError",
    "State",
    "cancel",
    "count_errors",
    "enqueue",
    "enqueue_many",
    "find_jobs",
    "get_job",
    "replay",
]


@lru_cache(maxsize=1)
def _default() -> Producer:
    return Producer()


if TYPE_CHECKING:
    _typed = Producer()
    enqueue = _typed.enqueue
    enqueue_many = _typed.enqueue_many
    get_job = _typed.get_job
    find_jobs = _typed.find_jobs
    count_errors = _typed.count_errors
    replay = _typed.replay
    cancel = _typed.cancel
else:

    def __getattr__(name: str) -> Any:
        # The environment is read when a function is first asked for, not at import.
        if name in {
            "enqueue",
            "enqueue_many",
            "get_job",
            "find_jobs",
            "count_errors",
            "replay",
            "cancel",
        }:
            return getattr(_default(), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
