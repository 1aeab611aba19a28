"""The connection to Redis, and messages for its errors."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import (
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from ..schemas import QueueUnavailable, RedisUrl, SettingsError, parse_redis_url

_DefaultParser: Any = DefaultParser


class PunctualParser(_DefaultParser):  # type: ignore[misc]  # chosen at run time
    """Reads a whole reply within at most twice the connection's timeout.

    redis-py applies the timeout to each chunk, so a reply in small chunks could take forever.
    """

    _late_at: float | None = None

    def read_response(self, *args: Any, **options: Any) -> Any:
        self._late_at = None
        return super().read_response(*args, **options)

    def read_from_socket(self, *args: Any, **options: Any) -> Any:
        now = time.monotonic()
        if self._late_at is None:
            self._late_at = now + (self._socket_timeout or math.inf)
        elif now >= self._late_at:
            raise redis.TimeoutError("Timeout reading from socket")
        return super().read_from_socket(*args, **options)


def redis_server(redis_url: str) -> RedisUrl:
    """Read the setting `redis_url`.

    Raises:
        SettingsError: it is not valid.
    """
    try:
        return parse_redis_url(redis_url)
    except ValueError as error:
        raise SettingsError(f"HARASOCIAL_REDIS_URL {error}") from None


def connect(redis_url: str, *, timeout_seconds: float, max_connections: int) -> redis.Redis:
    """Return a client whose commands return or fail within twice `timeout_seconds`.

    The client does not retry, because only the caller can decide whether a command is safe to
    repeat. Options in `redis_url` take precedence over `timeout_seconds`.

    Raises:
        SettingsError: `redis_url` is not valid.
    """
    server = redis_server(redis_url)
    where: dict[str, Any] = {"host": server.host, "port": server.port, **server.tls}
    connection_class: Any = SSLConnection if server.tls else Connection
    if server.path:
        where, connection_class = {"path": server.path}, UnixDomainSocketConnection
    timeouts = {"socket_timeout": timeout_seconds, "socket_connect_timeout": timeout_seconds}
    pool = redis.ConnectionPool(
        connection_class=connection_class,
        **where,
        **{**timeouts, **server.connection},
        db=server.database,
        username=server.username,
        password=server.password,
        retry=Retry(NoBackoff(), 0),
        max_connections=max_connections,
        parser_class=PunctualParser,
        protocol=2,
        decode_responses=True,
        # Another client may have written bytes that are not text; reading them must not fail.
        encoding_errors="replace",
    )
    return redis.Redis.from_pool(pool)


def address(redis_url: str) -> str:
    """Return the address in `redis_url`, without user and password."""
    try:
        return parse_redis_url(redis_url).address
    except ValueError:  # connecting raises the error
        return "an unusable URL"


def server_time_ms(client: Any) -> int:
    """Return the time by the server's clock, in milliseconds since the epoch."""
    seconds, microseconds = client.time()
    return int(seconds) * 1000 + int(microseconds) // 1000


@contextmanager
def translated_errors(redis_url: str) -> Iterator[None]:
    """Raise `QueueUnavailable`, with advice, instead of redis-py's errors."""
    try:
        yield
    except RedisError as error:
        raise QueueUnavailable(explain(error, redis_url)) from error


def explain(error: RedisError, redis_url: str) -> str:
    """Return one sentence that explains to people why a command failed."""
    where = f"Redis at {address(redis_url)}"
    if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
        return f"{where} refused the user or password: check HARASOCIAL_REDIS_URL"
    if isinstance(error, BusyLoadingError):
        return f"{where} is still loading its data; try again soon"
    if isinstance(error, ReadOnlyError):
        return f"{where} is a read-only replica: point HARASOCIAL_REDIS_URL to the primary"
    if isinstance(error, OutOfMemoryError):
        return f"{where} has no memory left and refuses to write"
    if isinstance(error, ResponseError):
        return f"{where} refused: {error}"
    if isinstance(error, redis.TimeoutError):
        return f"{where} did not reply in time"
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"{where} has a certificate that is not trusted: {cause.verify_message} (name the file "
            "of its CA in HARASOCIAL_REDIS_URL: ?ssl_ca_certs=/path/ca.pem)"
        )
    if isinstance(cause, ssl.SSLError):
        return (
            f"{where} cannot be reached by TLS: {cause.reason or cause.strerror} (is TLS enabled "
            "on this port, and is a client certificate required?)"
        )
    return (
        f"{where} cannot be reached: {_cause(error)} (is it running, and is HARASOCIAL_REDIS_URL "
        "right?)"
    )


def _cause(error: RedisError) -> str:
    """Return the reason, without the address that redis-py adds to its text."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(error).rstrip(".")
