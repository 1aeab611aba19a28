"""The errors that this package raises, as one tree.

    DispatchError
    ├── SettingsError        a setting is missing or wrong; nothing was started
    ├── InvalidJob           what was handed in breaks the contract; nothing was stored
    ├── JobNotFound          no job has this id (any more)
    └── QueueUnavailable     Redis did not do it; nothing was stored
        └── EnqueueUnknown   the reply was lost: the job may or may not be stored

`SettingsError` is a mistake of the operator, `InvalidJob` one of the caller, and
`QueueUnavailable` passes by itself: a web app answers the second with 422 and the third with 503.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class DispatchError(Exception):
    """What every error of this package is."""


class SettingsError(DispatchError):
    """A setting is missing or wrong. The message names the variable and what was expected."""


class InvalidJob(DispatchError, ValueError):
    """A job breaks the contract of the API (design promise 10).

    Attributes:
        errors: what is wrong, by field path, such as `{"recipient.id": ["…"]}`.
    """

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        self.errors: dict[str, list[str]] = {path: list(texts) for path, texts in errors.items()}
        super().__init__("; ".join(f"{path}: {' '.join(ts)}" for path, ts in self.errors.items()))

    def __reduce__(self) -> tuple[type[InvalidJob], tuple[dict[str, list[str]]]]:
        return (type(self), (self.errors,))


class JobNotFound(DispatchError, LookupError):
    """No job has this id: it never existed, or its retention has ended."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id!r}; it never existed or its retention ended")

    def __reduce__(self) -> tuple[type[JobNotFound], tuple[str]]:
        return (type(self), (self.job_id,))


class QueueUnavailable(DispatchError):
    """Redis could not be reached, or refused; what was asked for was not done.

    Attributes:
        accepted: ids of the jobs that `enqueue_many` had stored before (they will be sent).
    """

    def __init__(self, message: str, *, accepted: Sequence[str] = ()) -> None:
        self.accepted = list(accepted)
        super().__init__(message)


class EnqueueUnknown(QueueUnavailable):
    """The reply was lost: whether the jobs are stored cannot be known (design promise 2).

    Enqueueing again with the same idempotency key is safe: it makes one job.

    Attributes:
        job_ids: the ids the jobs have if they were stored; look them up when Redis is back.
    """

    def __init__(
        self, message: str, *, job_ids: Sequence[str] = (), accepted: Sequence[str] = ()
    ) -> None:
        self.job_ids = list(job_ids)
        super().__init__(message, accepted=accepted)
