"""The connection to Redis, and its errors in this package's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from ..schemas import QueueUnavailable, SettingsError


def connect(redis_url: str, *, timeout_seconds: float, max_connections: int) -> redis.Redis:
    """Return a client whose every command answers, or fails, within `timeout_seconds` twice over.

    It never retries by itself: each caller knows whether its command may be made again.
    """
    try:
        return redis.Redis.from_url(
            redis_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            max_connections=max_connections,
            protocol=2,
            decode_responses=True,
            # Other hands may have put bytes into Redis that are no text; they must not stop us.
            encoding_errors="replace",
        )
    except (ValueError, RedisError):
        # redis-py's text may quote a part of the password.
        raise SettingsError(
            "HARASOCIAL_REDIS_URL is not usable: expected a URL such as redis://:password@host:6379/0"
        ) from None


def address(redis_url: str) -> str:
    """Return where `redis_url` points to, without the password that may stand in it."""
    parts = urlsplit(redis_url)
    if parts.scheme == "unix":
        return parts.path
    try:
        port = parts.port
    except ValueError:  # settings refuse it; whoever made them by hand is told when connecting
        port = None
    return f"{parts.hostname or 'localhost'}:{port or 6379}{parts.path}"


def server_time_ms(client: Any) -> int:
    """Return the time by the server's clock, in milliseconds since the epoch."""
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@contextmanager
def translated_errors(redis_url: str) -> Iterator[None]:
    """Raise `QueueUnavailable`, saying what to do, in place of redis-py's errors."""
    try:
        yield
    except RedisError as error:
        raise QueueUnavailable(explain(error, redis_url)) from error


def explain(error: RedisError, redis_url: str) -> str:
    """Return one sentence for people on why Redis did not do what was asked."""
    where = f"Redis at {address(redis_url)}"
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return f"{where} wants another user or password: see HARASOCIAL_REDIS_URL"
    if isinstance(error, BusyLoadingError):
        return f"{where} is still loading its data; try again soon"
    if isinstance(error, ReadOnlyError):
        return f"{where} is a read-only replica: point HARASOCIAL_REDIS_URL to the primary"
    if isinstance(error, OutOfMemoryError):
        return f"{where} has no memory left and refuses to write"
    if isinstance(error, ResponseError):
        return f"{where} refused: {error}"
    if isinstance(error, redis.TimeoutError):
        return f"{where} did not answer in time"
    return (
        f"{where} cannot be reached: {_cause(error)} (is it running, and is HARASOCIAL_REDIS_URL "
        "right?)"
    )


def _cause(error: RedisError) -> str:
    """Return why, without the address that redis-py repeats in its text."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).rstrip(".")
