"""The contract: jobs, their states, the outcomes of attempts, errors and settings.

This package does no I/O except to read settings. Every other part may import it.
"""

# Import through the parent package, so that a bare `import schemas` fails here instead of loading
# every module twice.
from __future__ import annotations

from ..schemas.new_job import MessageRow, NewJob, parse_new_job, parse_row
from .errors import (
    AmbiguousJobId,
    CampaignCanceled,
    CampaignNotFound,
    DispatchError,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    InvalidRequest,
    JobNotFound,
    QueueUnavailable,
    SettingsError,
)
from .job import MESSAGING_TYPE, MessageBody, SendJob, SendJobSchema, parse_send_job
from .job_record import Attempt, JobRecord, ReplayRecord, from_ms, from_stored, iso_utc
from .outcome import CallLimit, JobVerdict, LaneVerdict, Outcome
from .redis_url import RedisUrl, parse_redis_url
from .reply import ApiReply, parse_reply, sanitize
from .settings import Settings, use_host_settings
from .states import Delivery, OutcomeClass, State
from .steering import (
    START_WITHIN_SECONDS,
    check_by,
    check_page_id,
    check_pause_seconds,
    check_rate,
    check_reason,
    rate_problem,
)

__all__ = [
    "MESSAGING_TYPE",
    "START_WITHIN_SECONDS",
    "AmbiguousJobId",
    "ApiReply",
    "Attempt",
    "CallLimit",
    "CampaignCanceled",
    "CampaignNotFound",
    "Delivery",
    "DispatchError",
    "EnqueueUnknown",
    "IdempotencyConflict",
    "InvalidJob",
    "InvalidRequest",
    "JobNotFound",
    "JobRecord",
    "JobVerdict",
    "LaneVerdict",
    "MessageBody",
    "MessageRow",
    "NewJob",
    "Outcome",
    "OutcomeClass",
    "QueueUnavailable",
    "RedisUrl",
    "ReplayRecord",
    "SendJob",
    "SendJobSchema",
    "Settings",
    "SettingsError",
    "State",
    "check_by",
    "check_page_id",
    "check_pause_seconds",
    "check_rate",
    "check_reason",
    "from_ms",
    "from_stored",
    "iso_utc",
    "parse_new_job",
    "parse_redis_url",
    "parse_reply",
    "parse_row",
    "parse_send_job",
    "rate_problem",
    "sanitize",
    "use_host_settings",
]
