"""The Redis server of a test kit: in memory with a movable clock, or a real server."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from operator import attrgetter
from typing import Any, Protocol

from ..ledger import Enqueued, Ledger
from ..schemas import JobRecord, Settings


class OrderedLedger(Ledger):
    """A ledger that rings no doorbell and records the order of enqueueing."""

    def __init__(self, settings: Settings, client: Any = None) -> None:
        super().__init__(settings, client=client)
        self._order: dict[str, int] = {}

    def enqueue(self, *args: Any, **options: Any) -> Enqueued:
        """Store jobs."""
        enqueued = super().enqueue(*args, **options)
        for job in enqueued.jobs:
            self._order.setdefault(job.job_id, len(self._order))
        return enqueued

    def in_order(self, jobs: Iterable[JobRecord]) -> list[JobRecord]:
        """Return jobs in the order of enqueueing. Jobs of other processes are ordered by time."""
        by_time = sorted(jobs, key=attrgetter("enqueued_at"))
        return sorted(by_time, key=lambda job: self._order.get(job.job_id, -1))


class Server(Protocol):
    """The server that stores the jobs, and its clock.

    Attributes:
        longest_wait: the default of `within` in `TestKit.drain`.
    """

    longest_wait: timedelta

    def ledger(self, settings: Settings) -> OrderedLedger:
        """Return a ledger on this server."""

    def pass_time(self, seconds: float) -> None:
        """Move the server's clock forward, or wait."""

    def return_to_now(self) -> None:
        """Set the clock back to the real time, if possible."""


class InMemory:
    """A separate fakeredis server. Its clock moves only during a drain.

    Raises:
        ModuleNotFoundError: fakeredis or its Lua is not installed.
    """

    longest_wait = timedelta(days=1)

    def __init__(self) -> None:
        try:
            import fakeredis  # noqa: PLC0415
            import lupa  # noqa: F401, PLC0415
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the test kit needs {error.name}: pip install 'harasocial-dispatch[testing]'",
                name=error.name,
            ) from None
        self._passed_seconds = 0.0
        self._client = fakeredis.FakeRedis(decode_responses=True)
        pool = self._client.connection_pool
        pool.connection_class = _with_clock(pool.connection_class, self._time)

    def ledger(self, settings: Settings) -> OrderedLedger:
        """Return a ledger on this server."""
        return OrderedLedger(settings, self._client)

    def pass_time(self, seconds: float) -> None:
        """Move the clock forward."""
        self._passed_seconds += seconds

    def return_to_now(self) -> None:
        """Set the clock back to the real time."""
        self._passed_seconds = 0.0

    def _time(self) -> list[bytes]:
        """Return the reply to the command TIME."""
        seconds, microseconds = divmod(round((time.time() + self._passed_seconds) * 1e6), 1_000_000)
        return [b"%d" % seconds, b"%d" % microseconds]


def _with_clock(connection_class: type[Any], clock: Any) -> type[Any]:
    """Return a connection class whose command TIME, also in scripts, calls `clock`."""

    class ConnectionWithClock(connection_class):  # type: ignore[misc]  # known at run time only
        def _connect(self) -> Any:
            server_side = super()._connect()
            server_side.time = clock
            return server_side

    return ConnectionWithClock


class RealServer:
    """A Redis or Valkey server at a URL. Its clock cannot be moved, so waits take real time."""

    longest_wait = timedelta(seconds=2)

    def ledger(self, settings: Settings) -> OrderedLedger:
        """Return a ledger on this server."""
        return OrderedLedger(settings)

    def pass_time(self, seconds: float) -> None:
        """Sleep."""
        time.sleep(seconds)

    def return_to_now(self) -> None:
        """Do nothing, because the clock was not moved."""
