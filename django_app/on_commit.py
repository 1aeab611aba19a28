"""Enqueue a message that belongs to a row of the database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from django.db import transaction

from .. import producer
from ..schemas import DispatchError, MessageBody, parse_new_job

logger = logging.getLogger(__name__)


def enqueue_on_commit(
    job: MessageBody | Mapping[str, Any],
    *,
    idempotency_key: str,
    on_enqueued: Callable[[str], object] = lambda _: None,
    using: str | None = None,
    **options: Any,
) -> None:
    """Enqueue a message when the current transaction is committed, or now if there is none.

    After a rollback, nothing is enqueued. An error after the commit (Redis is not available, or the
    key belongs to another message) is logged and not raised, because the transaction is already
    committed. You can enqueue again later: the same idempotency key makes one job.

    Args:
        job: the body of the API's request.
        idempotency_key: a key that is derived from the row, such as `order-placed-1001`.
        on_enqueued: called with the job's id. Not called after an error.
        using: the alias of the database.
        options: other options of `enqueue`.

    Raises:
        InvalidJob: immediately, so that the transaction can be rolled back.
    """
    options["idempotency_key"] = idempotency_key
    parse_new_job(job, options)
    body = deepcopy(job)

    def enqueue() -> None:
        try:
            job_id = producer.enqueue(body, **options)
        except DispatchError as error:
            logger.error(
                "the message with the idempotency key %r is not enqueued: %s",
                idempotency_key,
                error,
                extra={"action": "not_enqueued"},
            )
            return
        on_enqueued(job_id)

    transaction.on_commit(enqueue, using=using)
