"""The rows of `enqueue_many`: validation and results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from ..ledger import EnqueuedJob
from ..schemas import InvalidJob, NewJob, parse_row
from ..schemas.errors import belongs_to_another
from ..schemas.new_job import with_default_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row of `enqueue_many` that was not enqueued.

    It is not valid, or its idempotency key belongs to a job with another body.

    Attributes:
        index: index of the row, from 0.
        errors: error messages by field path.
    """

    index: int
    row: Any
    errors: dict[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueReport:
    """The results of `enqueue_many`.

    Attributes:
        accepted: the job ids of the rows that are enqueued, in the order of the rows. A row whose
            idempotency key already has a job has the id of that job.
        already_enqueued: the ids in `accepted` that were enqueued before, by another call or an
            earlier row.
        rejected: the other rows, in order.
    """

    accepted: list[str] = field(default_factory=list)
    already_enqueued: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def new_count(self) -> int:
        """Number of jobs that this call stored."""
        return len(self.accepted) - len(self.already_enqueued)

    @property
    def already_enqueued_count(self) -> int:
        """Number of rows that were already enqueued."""
        return len(self.already_enqueued)

    def add(self, rows: Sequence[ValidRow], enqueued: Sequence[EnqueuedJob]) -> None:
        """Add the results of a batch."""
        conflicts = []
        for row, found in zip(rows, enqueued, strict=True):
            if found.conflicting_fields:
                text = belongs_to_another(found.job_id, found.conflicting_fields)
                errors = {"idempotency_key": [f"The key {text}."]}
                conflicts.append(Rejected(index=row.index, row=row.row, errors=errors))
                continue
            self.accepted.append(found.job_id)
            if not found.is_new:
                self.already_enqueued.append(found.job_id)
        if conflicts:
            self.rejected.extend(conflicts)
            self.rejected.sort(key=attrgetter("index"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidRow:
    """A row of `enqueue_many` with its job; `row` is None if rows are never rejected."""

    index: int
    row: Any
    job: NewJob


def valid_rows(
    rows: Iterable[Any], rejected: list[Rejected] | None, *, allow_duplicates: bool
) -> Iterator[ValidRow]:
    """Yield the valid rows. Append the others to `rejected`, or raise if it is None.

    Unless `allow_duplicates` is set, a campaign's row without an idempotency key gets one.
    """
    for index, row in enumerate(rows):
        try:
            job = parse_row(row)
        except InvalidJob as error:
            if rejected is None:
                raise InvalidJob(
                    {f"[{index}].{path}": texts for path, texts in error.errors.items()}
                ) from None
            rejected.append(Rejected(index=index, row=row, errors=error.errors))
        else:
            if not allow_duplicates:
                job = with_default_key(job)
            # The row is kept only if it may have to be reported as rejected.
            yield ValidRow(index=index, row=None if rejected is None else row, job=job)
