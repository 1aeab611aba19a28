"""Store new jobs, and report what was stored (design promises 1 to 3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import redis

from ..schemas import EnqueueUnknown, IdempotencyConflict, NewJob, QueueUnavailable, Settings
from .connection import explain
from .exchange import Enqueued, EnqueuedJob, new_job_rows
from .job_hash import BODY_FIELDS
from .scripts import Scripts


def store(
    jobs: Sequence[NewJob], scripts: Scripts, settings: Settings, *, skip_conflicts: bool
) -> Enqueued:
    """Store all jobs or none; with `skip_conflicts`, all except those in conflict.

    Raises:
        IdempotencyConflict: a job is in conflict, and `skip_conflicts` is not set; nothing was
            stored.
        QueueUnavailable: nothing was stored.
        EnqueueUnknown: the reply was lost; the jobs may be stored.
    """
    ids = _new_ids(len(jobs))
    reply = _store(jobs, ids, scripts, settings, skip_conflicts)
    enqueued = _enqueued(ids, scripts.ring_if_told(reply))
    if not skip_conflicts:
        _raise_conflict(jobs, ids, enqueued)
    return enqueued


def _store(
    jobs: Sequence[NewJob],
    ids: list[str],
    scripts: Scripts,
    settings: Settings,
    skip_conflicts: bool,
) -> list[Any]:
    args = (
        round(settings.expires_seconds * 1000),
        int(skip_conflicts),
        new_job_rows(ids, jobs),
    )
    try:
        # Connecting is a separate step: if it fails, nothing was stored.
        with scripts.connection() as connection:
            try:
                return scripts.run(connection, "enqueue", *args)
            except redis.TimeoutError as error:
                raise _unknown(error, jobs, ids, settings) from error
            except (redis.ResponseError, redis.BusyLoadingError):
                raise
            except redis.RedisError:
                # The connection broke, perhaps before the command arrived. The ids are fixed, so
                # repeating the call cannot make a second job.
                try:
                    return scripts.run(connection, "enqueue", *args)
                except redis.RedisError as error:
                    raise _unknown(error, jobs, ids, settings) from error
    except redis.RedisError as error:
        reason = explain(error, settings.redis_url)
        raise QueueUnavailable(f"{reason}; nothing was enqueued") from error


def _new_ids(count: int) -> list[str]:
    """Return job ids of 32 random hexadecimal digits, with one system call."""
    digits = os.urandom(16 * count).hex()
    return [digits[start : start + 32] for start in range(0, len(digits), 32)]


def _enqueued(ids: Sequence[str], answers: list[Any]) -> Enqueued:
    return Enqueued(
        jobs=[
            EnqueuedJob(job_id=job_id, is_new=True) if answer == 1 else _known_job(*answer)
            for job_id, answer in zip(ids, answers, strict=True)
        ]
    )


def _known_job(job_id: str, _: str, *fields: str) -> EnqueuedJob:
    conflicting = tuple(BODY_FIELDS.get(name, name) for name in fields)
    return EnqueuedJob(job_id=job_id, is_new=False, conflicting_fields=conflicting)


def _raise_conflict(jobs: Sequence[NewJob], ids: list[str], enqueued: Enqueued) -> None:
    for index, (new, found) in enumerate(zip(jobs, enqueued.jobs, strict=True)):
        if found.conflicting_fields:
            raise IdempotencyConflict(
                idempotency_key=new.idempotency_key or "",
                # Such an id may belong to a job of this call, which was not stored.
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
