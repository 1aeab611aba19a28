"""The errors that this package raises, as one tree.

    DispatchError
    ├── SettingsError        a setting is missing or invalid; nothing was started
    ├── InvalidJob           the job is invalid; nothing was stored
    ├── IdempotencyConflict  the key belongs to a job with another body; nothing was stored
    ├── InvalidRequest       an argument of a page or campaign is invalid; nothing was changed
    ├── CampaignNotFound     no campaign has this name
    ├── CampaignCanceled     the campaign is canceled; it cannot be held or released
    ├── JobNotFound          no job has this id
    ├── AmbiguousJobId       several job ids begin with this text
    └── QueueUnavailable     Redis is not available; nothing was stored
        └── EnqueueUnknown   the reply was lost: the job may or may not be stored

The operator must correct a `SettingsError`. The caller must correct `InvalidJob`, `InvalidRequest`
and `IdempotencyConflict`. `QueueUnavailable` is temporary. A web app returns 422 for an invalid job
or request, 409 for a conflict, 404 for an unknown job and 503 if Redis is not available.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class DispatchError(Exception):
    """Base class of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default, pickle calls `__init__` with the message. Many errors have other arguments.
        return (type(self).__new__, (type(self), *self.args), vars(self))


class SettingsError(DispatchError):
    """A setting is missing or invalid. The message names the variable and the expected value."""


class InvalidJob(DispatchError, ValueError):
    """A job is not valid for the API (design promise 10).

    Attributes:
        errors: the problems by field path, such as `{"recipient.id": ["…"]}`.
    """

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        self.errors: dict[str, list[str]] = {path: list(texts) for path, texts in errors.items()}
        super().__init__("; ".join(f"{path}: {' '.join(ts)}" for path, ts in self.errors.items()))


class InvalidRequest(DispatchError, ValueError):
    """An argument about a page or campaign is invalid. The message names the argument."""


class IdempotencyConflict(DispatchError, ValueError):
    """An idempotency key belongs to a job with another body (design promise 3).

    The message has the key and the names of the fields, never the values of fields.

    Attributes:
        idempotency_key: the key.
        job_id: id of the job that has the key; None if an earlier row of the same call has it,
            which was not stored either.
        fields: the fields of the body that differ, such as `["recipient.id", "metadata"]`.
        index: the row of `enqueue_many`, counted from 0.
        accepted: ids of the jobs that `enqueue_many` stored before the error; they will be sent.
    """

    def __init__(
        self,
        *,
        idempotency_key: str,
        job_id: str | None,
        fields: Sequence[str],
        index: int = 0,
        accepted: Sequence[str] = (),
    ) -> None:
        self.idempotency_key = idempotency_key
        self.job_id = job_id
        self.fields = list(fields)
        self.index = index
        self.accepted = list(accepted)
        stored = f"only {len(accepted)} jobs before it were" if accepted else "nothing was"
        super().__init__(
            f"idempotency key {idempotency_key!r} {belongs_to_another(job_id, fields)}; "
            f"{stored} enqueued. Use another key for another message."
        )


def belongs_to_another(job_id: str | None, fields: Sequence[str]) -> str:
    """Return the description of a conflict: `belongs to job 1f0c…, which has another …`."""
    *others, last = fields
    names = f"{', '.join(others)} and {last}" if others else last
    holder = "an earlier row" if job_id is None else f"job {job_id}"
    return f"belongs to {holder}, which has another {names}"


class CampaignNotFound(DispatchError, LookupError):
    """No campaign has this name: it never existed, or its retention has ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no campaign has the name {name!r}")


class CampaignCanceled(DispatchError, ValueError):
    """The campaign is canceled: it sends nothing, and it cannot be held or released."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"campaign {name!r} is canceled: it sends no more messages")


class JobNotFound(DispatchError, LookupError):
    """No job has this id: it never existed, or its retention has ended."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"no job has the id {job_id!r}: it never existed, or its retention has ended"
        )


class AmbiguousJobId(DispatchError, LookupError):
    """Several job ids begin with the given text.

    Attributes:
        candidates: some of these ids.
    """

    def __init__(self, beginning: str, candidates: Sequence[str]) -> None:
        self.beginning = beginning
        self.candidates = list(candidates)
        super().__init__(
            f"several job ids begin with {beginning!r}: {', '.join(candidates)}; "
            "give more characters of the id"
        )


class QueueUnavailable(DispatchError):
    """Redis is not available: it cannot be reached or refused the command. Nothing was done.

    Attributes:
        accepted: ids of the jobs that `enqueue_many` stored before the error; they will be sent.
    """

    def __init__(self, message: str, *, accepted: Sequence[str] = ()) -> None:
        self.accepted = list(accepted)
        super().__init__(message)


class EnqueueUnknown(QueueUnavailable):
    """The reply was lost: the jobs may or may not be stored (design promise 2).

    It is safe to enqueue again with the same idempotency key: that makes one job. Without a key,
    look up the ids first.

    Attributes:
        job_ids: the ids that the jobs have if they were stored; look them up when Redis is back.
    """

    def __init__(
        self, message: str, *, job_ids: Sequence[str] = (), accepted: Sequence[str] = ()
    ) -> None:
        self.job_ids = list(job_ids)
        super().__init__(message, accepted=accepted)
