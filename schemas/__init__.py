"""The contract: what a job is, where it can stand, how an attempt can end, what can be set.

Nothing here talks to anything; every other part may import it.
"""

# Through the parent: a bare `import schemas` fails here, instead of loading everything twice.
from ..schemas.new_job import MessageRow, NewJob, parse_new_job, parse_row
from .errors import (
    AmbiguousJobId,
    DispatchError,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    QueueUnavailable,
    SettingsError,
)
from .job import MESSAGING_TYPE, MessageBody, SendJob, SendJobSchema, parse_send_job
from .job_record import Attempt, JobRecord, ReplayRecord, from_ms, iso_utc
from .outcome import CallLimit, JobVerdict, LaneVerdict, Outcome
from .redis_url import RedisUrl, parse_redis_url
from .reply import ApiReply, parse_reply, sanitize
from .settings import Settings, use_host_settings
from .states import Delivery, OutcomeClass, State

__all__ = [
    "MESSAGING_TYPE",
    "AmbiguousJobId",
    "ApiReply",
    "Attempt",
    "CallLimit",
    "Delivery",
    "DispatchError",
    "EnqueueUnknown",
    "IdempotencyConflict",
    "InvalidJob",
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
    "from_ms",
    "iso_utc",
    "parse_new_job",
    "parse_redis_url",
    "parse_reply",
    "parse_row",
    "parse_send_job",
    "sanitize",
    "use_host_settings",
]
