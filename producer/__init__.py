"""The API for web apps: enqueue, look up, replay, cancel and pause.

    from harasocial_dispatch.producer import enqueue

    job_id = enqueue({"recipient": {"id": "2560816460648749"},
                      "message": {"payload_id": "__hrf_f_…"},
                      "page_id": "500725830264749"},
                     idempotency_key="order-1001-paid")

The functions are methods of one `Producer`. It is created from the environment when the first
function is imported, as in the example. To use other settings, create a `Producer(settings)`.
`MessageBody` is the type of a body, for type checkers and editors.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..ledger import Campaign, Lifted
from ..schemas import (
    AmbiguousJobId,
    CampaignCanceled,
    CampaignNotFound,
    DispatchError,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    InvalidRequest,
    JobNotFound,
    JobRecord,
    MessageBody,
    MessageRow,
    QueueUnavailable,
    Settings,
    SettingsError,
    State,
)
from .batch import EnqueueReport, Rejected
from .cancellation import CancelReport
from .producer import Producer

__all__ = [
    "AmbiguousJobId",
    "Campaign",
    "CampaignCanceled",
    "CampaignNotFound",
    "CancelReport",
    "DispatchError",
    "EnqueueReport",
    "EnqueueUnknown",
    "IdempotencyConflict",
    "InvalidJob",
    "InvalidRequest",
    "JobNotFound",
    "JobRecord",
    "Lifted",
    "MessageBody",
    "MessageRow",
    "Producer",
    "QueueUnavailable",
    "Rejected",
    "Settings",
    "SettingsError",
    "State",
    "cancel",
    "cancel_campaign",
    "cancel_many",
    "count_errors",
    "enqueue",
    "enqueue_many",
    "find_jobs",
    "get_campaign",
    "get_job",
    "hold_campaign",
    "pause_page",
    "release_campaign",
    "replay",
    "resume_page",
    "set_rate",
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
    cancel_many = _typed.cancel_many
    pause_page = _typed.pause_page
    resume_page = _typed.resume_page
    set_rate = _typed.set_rate
    get_campaign = _typed.get_campaign
    hold_campaign = _typed.hold_campaign
    release_campaign = _typed.release_campaign
    cancel_campaign = _typed.cancel_campaign
else:

    def __getattr__(name: str) -> Any:
        # The environment is read when a function is first imported, not when this module is.
        # The other public names are attributes of the module, so Python does not call this.
        if name in __all__:
            return getattr(_default(), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
