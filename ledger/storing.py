"""Storing new jobs so that the caller knows what became of them (design promises 1 to 3)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import redis

from ..schemas import EnqueueUnknown, NewJob, QueueUnavailable, Settings
from .connection import explain
from .exchange import Enqueued, new_job_row
from .scripts import Scripts


def store(
    jobs: Sequence[NewJob], client: redis.Redis, scripts: Scripts, settings: Settings
) -> Enqueued:
    """Store jobs, all or none.

    Raises:
        QueueUnavailable: nothing was stored.
        EnqueueUnknown: the reply was lost; the jobs may be stored.
    """
    ids = [uuid.uuid4().hex for _ in jobs]
    rows = [new_job_row(job_id, job) for job_id, job in zip(ids, jobs, strict=True)]
    life_ms = round(settings.expires_seconds * 1000)
    try:
        # Connecting is apart from sending: what fails here has stored nothing.
        client.connection_pool.release(client.connection_pool.get_connection())
        try:
            return _store(scripts, life_ms, rows)
        except redis.TimeoutError as error:
            raise _unknown(error, ids, settings) from error
        except (redis.ResponseError, redis.BusyLoadingError):
            raise
        except redis.RedisError:
            # The connection broke, perhaps before the command arrived. The ids are ours, so
            # making the same call once more cannot make a second job.
            try:
                return _store(scripts, life_ms, rows)
            except redis.RedisError as error:
                raise _unknown(error, ids, settings) from error
    except redis.RedisError as error:
        reason = explain(error, settings.redis_url)
        raise QueueUnavailable(f"{reason}; nothing was enqueued") from error


def _store(scripts: Scripts, life_ms: int, rows: list[str]) -> Enqueued:
    ring, *stored = scripts("enqueue", life_ms, *rows)
    return Enqueued(job_ids=stored, ring=ring == 1)


def _unknown(error: redis.RedisError, ids: list[str], settings: Settings) -> EnqueueUnknown:
    them = "it was" if len(ids) == 1 else "they were"
    return EnqueueUnknown(
        f"{explain(error, settings.redis_url)}; whether {them} enqueued is unknown: "
        "enqueue again with the same idempotency key, which makes one job",
        job_ids=ids,
    )
