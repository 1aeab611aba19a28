"""Jobs that the ledger failed by itself, before any attempt: who is told of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..ledger import Unsent

#: Takes jobs that were failed unsent. Must neither block nor raise.
UnsentObserver = Callable[[list[Unsent]], None]

logger = logging.getLogger(__name__)


def log_unsent(jobs: list[Unsent]) -> None:
    """Log each job, without personal ids."""
    for job in jobs:
        logger.warning(
            "job %s of page %s: failed (%s)",
            job.job_id,
            job.page_id,
            job.error_code,
            extra={
                "action": "job_failed",
                "job_id": job.job_id,
                "page_id": job.page_id,
                "error_code": job.error_code,
            },
        )
