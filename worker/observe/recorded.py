"""Recorded results, and who observes them: the log, the metrics, Flower."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...ledger import Result

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A result that was recorded.

    `held` is False when another process had taken the job over, so that nothing was recorded.
    """

    result: Result
    held: bool


#: Takes a batch of recorded results. Must neither block nor raise.
Observer = Callable[[list[Recorded]], None]


def pair(results: Sequence[Result], held: Sequence[bool]) -> list[Recorded]:
    """Return results with what the ledger answered to them."""
    return [Recorded(result=r, held=h) for r, h in zip(results, held, strict=True)]


def chain(*observers: Observer) -> Observer:
    """Return an observer that calls others in turn."""

    def observe(batch: list[Recorded]) -> None:
        for observer in observers:
            observer(batch)

    return observe


def log(batch: list[Recorded]) -> None:
    """Log what did not go well: one line a job, without personal ids."""
    for recorded in batch:
        result, held = recorded.result, recorded.held
        if held and result.outcome.error_code is None:
            continue
        state = str(result.job_verdict.state) if held else "taken over by another worker"
        logger.warning(
            "job %s of page %s: %s (%s)",
            result.claim.job_id,
            result.claim.page_id,
            state,
            result.outcome.error_code,
            extra={
                "action": f"job_{result.job_verdict.state}" if held else "claim_lost",
                "job_id": result.claim.job_id,
                "page_id": result.claim.page_id,
                "error_code": result.outcome.error_code,
            },
        )
