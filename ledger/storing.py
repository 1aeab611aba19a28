"""Storing new jobs so that the caller knows what became of them (design promises 1 to 3)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import redis

from ..schemas import EnqueueUnknown, IdempotencyConflict, NewJob, QueueUnavailable, Settings
from .connection import explain
from .exchange import Enqueued, EnqueuedJob, new_job_row
from .job_hash import BODY_FIELDS
from .scripts import Scripts


def store(
    jobs: Sequence[NewJob],
    client: redis.Redis,
    scripts: Scripts,
    settings: Settings,
    *,
    skip_conflicts: bool,
) -> Enqueued:
    """Store jobs: all or none, but for those in conflict if `skip_conflicts`.

    Raises:
        IdempotencyConflict: of the first job in conflict, unless `skip_conflicts`; nothing was
            stored.
        QueueUnavailable: nothing was stored.
        EnqueueUnknown: the reply was lost; the jobs may be stored.
    """
    ids = [uuid.uuid4().hex for _ in jobs]
    enqueued = _store(jobs, ids, client, scripts, settings, skip_conflicts)
    if not skip_conflicts:
        _raise_conflict(jobs, ids, enqueued)
    return enqueued


def _store(
    jobs: Sequence[NewJob],
    ids: list[str],
    client: redis.Redis,
    scripts: Scripts,
    settings: Settings,
    skip_conflicts: bool,
) -> Enqueued:
    rows = [new_job_row(job_id, job) for job_id, job in zip(ids, jobs, strict=True)]
    options = (round(settings.expires_seconds * 1000), int(skip_conflicts))
    try:
        # Connecting is apart from sending: what fails here has stored nothing.
        client.connection_pool.release(client.connection_pool.get_connection())
        try:
            return _call(scripts, options, rows)
        except redis.TimeoutError as error:
            raise _unknown(error, jobs, ids, settings) from error
        except (redis.ResponseError, redis.BusyLoadingError):
            raise
        except redis.RedisError:
            # The connection broke, perhaps before the command arrived. The ids are ours, so
            # repeating the call cannot make a second job.
            try:
                return _call(scripts, options, rows)
            except redis.RedisError as error:
                raise _unknown(error, jobs, ids, settings) from error
    except redis.RedisError as error:
        reason = explain(error, settings.redis_url)
        raise QueueUnavailable(f"{reason}; nothing was enqueued") from error


def _call(scripts: Scripts, options: tuple[int, int], rows: list[str]) -> Enqueued:
    answers = scripts.and_ring("enqueue", *options, *rows)
    return Enqueued(
        jobs=[
            EnqueuedJob(
                job_id=job_id,
                is_new=answer == "new",
                conflicting_fields=tuple(BODY_FIELDS[name] for name in fields),
            )
            for job_id, answer, *fields in answers
        ]
    )


def _raise_conflict(jobs: Sequence[NewJob], ids: list[str], enqueued: Enqueued) -> None:
    for index, (new, found) in enumerate(zip(jobs, enqueued.jobs, strict=True)):
        if found.conflicting_fields:
            raise IdempotencyConflict(
                idempotency_key=new.idempotency_key or "",
                # One of these ids is that of a job of this call, so it was not stored.
                job_id=None if found.job_id in ids else found.job_id,
                fields=found.conflicting_fields,
                index=index,
            )


def _unknown(
    error: redis.RedisError, jobs: Sequence[NewJob], ids: list[str], settings: Settings
) -> EnqueueUnknown:
    them = "it was" if len(ids) == 1 else "they were"
    if all(job.idempotency_key is not None for job in jobs):
        advice = "enqueue again with the same idempotency key, which makes one job"
    else:
        advice = (
            "look up the job_ids before you enqueue again, since without an idempotency key a "
            "message may be sent twice"
        )
    return EnqueueUnknown(
        f"{explain(error, settings.redis_url)}; whether {them} enqueued is unknown: {advice}",
        job_ids=ids,
    )
