"""Read access to the keys of one ledger."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import redis

from ...schemas import JobRecord
from ..connection import server_time_ms, translated_errors
from ..job_hash import to_record
from ..scripts import Scripts
from .repairing_client import RepairingClient

#: Number of jobs that are read in one round trip.
CHUNK = 500


class Namespace:
    """The keys with one prefix. Every method may raise `QueueUnavailable`."""

    def __init__(self, client: redis.Redis, prefix: str, redis_url: str, scripts: Scripts) -> None:
        #: Untyped, because redis-py types every reply as "this or an awaitable of this".
        self.client: Any = RepairingClient(client, scripts, redis_url)
        self._prefix = prefix
        self._url = redis_url
        self._scripts = scripts

    def key(self, name: str) -> str:
        """Return the full name of a key."""
        return self._prefix + name

    def pipeline(self) -> Any:
        """Return a pipeline without a transaction."""
        return self.client.pipeline(transaction=False)

    def script(self, name: str, *args: str | int | float) -> list[Any]:
        """Run a script; the comment at the top of its file describes its arguments."""
        with translated_errors(self._url):
            return self._scripts(name, *args)

    def script_and_ring(self, name: str, *args: str | int | float) -> list[Any]:
        """Run a script whose reply begins with 1 to ring or 0; ring, and return the rest."""
        with translated_errors(self._url):
            return self._scripts.and_ring(name, *args)

    def now_ms(self) -> int:
        """Return the time by the server's clock (ms since the epoch)."""
        return server_time_ms(self.client)

    def records(self, ids: Iterable[str], *, chunk: int = CHUNK) -> Iterator[JobRecord]:
        """Yield the existing jobs among `ids`, read in chunks of `chunk` per round trip."""
        for some in chunks(ids, min(chunk, CHUNK)):
            pipeline = self.pipeline()
            for job_id in some:
                pipeline.hgetall(self.key(f"job:{job_id}"))
                pipeline.zscore(self.key("due"), job_id)
            answers = pipeline.execute()
            for i, job_id in enumerate(some):
                job, due = answers[2 * i], answers[2 * i + 1]
                if job:
                    yield to_record(job_id, job, due)


def chunks(values: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the values, `size` at a time."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk
