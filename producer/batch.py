"""The rows of `enqueue_many`: which are valid, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..schemas import InvalidJob, NewJob, parse_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row of `enqueue_many` that breaks the contract.

    Attributes:
        index: which row, counted from 0.
        errors: what is wrong, by field path.
    """

    index: int
    row: Any
    errors: dict[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueReport:
    """What became of the rows of `enqueue_many`: ids of accepted ones, in order, and the others."""

    accepted: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def valid_jobs(
    rows: Iterable[Mapping[str, Any]], rejected: list[Rejected] | None
) -> Iterator[NewJob]:
    """Yield the job of each row; put wrong rows into `rejected`, or raise if that is None."""
    for index, row in enumerate(rows):
        try:
            yield parse_row(row)
        except InvalidJob as error:
            if rejected is None:
                raise InvalidJob(
                    {f"[{index}].{path}": texts for path, texts in error.errors.items()}
                ) from None
            rejected.append(Rejected(index=index, row=row, errors=error.errors))
