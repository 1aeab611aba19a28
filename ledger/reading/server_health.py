"""Properties of the Redis server: version, safety of the data, clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.exceptions import ResponseError

from ...schemas import Settings
from ..connection import connect, translated_errors
from ..scripts import explain_version

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerHealth:
    """Properties of the server. One that the server does not report (ACL) is None.

    Attributes:
        version: of Redis, or as reported by a compatible server, such as "7.2.4".
        maxmemory_policy: policy for full memory; only "noeviction" loses no data.
        appendonly: whether it writes each change to disk (AOF), not only snapshots.
        is_replica: whether it is a replica, which refuses to write.
        clock_offset_seconds: the server's clock minus this host's clock.
        other_version: why this program must not use the namespace's keys, or None if it can.
    """

    version: str | None = None
    maxmemory_policy: str | None = None
    appendonly: bool | None = None
    is_replica: bool | None = None
    clock_offset_seconds: float | None = None
    other_version: str | None = None


def inspect(settings: Settings, *, timeout_seconds: float = 2.0) -> ServerHealth:
    """Return the properties of the server in `settings`.

    Raises:
        QueueUnavailable: it cannot be reached, or refuses the login.
        SettingsError: `redis_url` is not valid.
    """
    client: Any = connect(settings.redis_url, timeout_seconds=timeout_seconds, max_connections=1)
    try:
        with translated_errors(settings.redis_url):
            client.ping()
            # INFO has all values, and hosted servers that refuse CONFIG allow it.
            info = _unless_refused(client.info) or {}
            asked_at = time.time()
            clock = _unless_refused(client.time)
            answered_at = time.time()
            other_version = _unless_refused(
                lambda: explain_version(client, f"{{{settings.namespace}}}:")
            )
    finally:
        client.close()
    return ServerHealth(
        version=_text(info.get("redis_version")),
        maxmemory_policy=_text(info.get("maxmemory_policy")),
        appendonly=bool(info["aof_enabled"]) if "aof_enabled" in info else None,
        is_replica=info["role"] == "slave" if "role" in info else None,
        clock_offset_seconds=(
            None if clock is None else clock[0] + clock[1] / 1e6 - (asked_at + answered_at) / 2
        ),
        other_version=other_version,
    )


def _unless_refused(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except ResponseError:  # NOPERM, or the server does not support the command
        return None


def _text(value: Any) -> str | None:
    # redis-py converts a text that looks like a number.
    return None if value is None else str(value)
