"""Celery's connection to Redis, changed to be as safe and as robust as the ledger's.

What kombu 5.7 does by itself, and what is done about it here:

- It reads the login and the TLS options from the broker's URL, which Celery shows in many places,
  and does not verify certificates by default. Here it gets them from the parsed setting, and the
  URL that Celery has holds no secret.
- A worker's main process ends when the connection breaks while a message is unacknowledged (it
  tries to put that back over the broken connection), when Redis refuses a command (a replica, or a
  full server), or on a message that is not Celery's.
- It waits without a timeout for the rest of a broadcast that arrived in part, and up to 30 seconds
  between two attempts to connect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any, ClassVar

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection
from kombu.transport import redis as kombu_redis
from kombu.utils.collections import HashedSeq
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from ..ledger.connection import PunctualParser
from ..schemas import RedisUrl
from .message import Message, UnreadableMessage, read_broadcast, read_doorbell

#: Between two attempts to connect, in seconds: the first, what each adds, and the longest.
_RETRY_SECONDS = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}
#: How the names of queues for control commands and their replies end.
_MAILBOX = ".pidbox"

logger = logging.getLogger(__name__)


# The types that celery-types ships for kombu leave out what is overridden here.
_KombuChannel: Any = kombu_redis.Channel
_KombuConnection: Any = Connection
_KombuPool: Any = ConnectionPool


class _Channel(_KombuChannel):  # type: ignore[misc]  # see above
    #: A doorbell that was not acknowledged need not be put back: the sweep rings again.
    do_restore = False

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        server = self.connection.client.redis_server
        ours = {
            "username": server.username,
            "password": server.password,
            # Kombu leaves it out for a Unix socket.
            "socket_connect_timeout": self.socket_connect_timeout,
            "parser_class": PunctualParser,
        }
        return {**super()._connparams(asynchronous), **ours}

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver the message that a BRPOP returned; kombu's method with a check."""
        connection = self.client.connection
        try:
            try:
                answer = self.client.parse_response(connection, "BRPOP", **options)
            except self.connection_errors:
                # The next iteration connects again.
                connection.disconnect()
                raise
            if not answer:
                raise Empty
            key, data = answer
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            read = read_broadcast if queue.endswith(_MAILBOX) else read_doorbell
            return self._deliver_checked(read, data, queue)
        finally:
            self._in_poll = None

    def _receive_one(self, client: Any) -> bool | None:
        """Deliver a broadcast; kombu's method with a check and a timeout."""
        try:
            # Redis-py reads without a timeout if it may block.
            answer = client.parse_response(block=False, timeout=self.socket_timeout)
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(answer, (list, tuple)):
            return None
        payload = self._handle_message(client, answer)
        if not bytes_to_str(payload["type"]).endswith("message") or not payload["data"]:
            return None
        # "/database.exchange/routing key"
        topic = bytes_to_str(payload["channel"]).partition(".")[2]
        queue = self._fanout_to_queue.get(topic.split("/", 1)[0])
        if queue is None:
            return None
        return self._deliver_checked(read_broadcast, payload["data"], queue)

    def _deliver_checked(
        self, read: Callable[[bytes, str], Message], data: bytes, queue: str
    ) -> bool:
        try:
            message = read(data, queue)
        except UnreadableMessage as error:
            logger.warning(
                "a message in %s was dropped: %s",
                queue,
                error,
                extra={"action": "message_dropped"},
            )
            return False
        self.connection._deliver(message, queue)
        return True


class Transport(kombu_redis.Transport):
    """kombu's transport for Redis, which connects again when Redis refuses a command."""

    Channel = _Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


class _BrokerConnection(_KombuConnection):  # type: ignore[misc]  # see above
    """A connection to the server `redis_server`, which subclasses set."""

    redis_server: ClassVar[RedisUrl]
    pooled: ClassVar[type[PooledConnection]]
    #: None are needed: Celery makes a dedicated connection again when one is lost.
    publish_retries: ClassVar[int] = 0

    def get_transport_cls(self) -> type[Transport]:
        return Transport

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        return super().ensure_connection(*args, **{**options, **_RETRY_SECONDS})

    def ensure(
        self,
        obj: Any,
        fun: Callable[..., Any],
        errback: Any = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Callable[..., Any]:
        # Celery publishes heartbeats and replies with retries without end, during which a worker's
        # main process is deaf.
        retries = self.publish_retries if max_retries is None else max_retries
        return super().ensure(obj, fun, errback, retries, **options)  # type: ignore[no-any-return]

    def Pool(self, limit: int | None = None, **options: Any) -> ConnectionPool:  # noqa: N802 - kombu's
        return _Pool(self, limit, **options)

    def as_uri(self, include_password: bool = False, *_: Any, **__: Any) -> str:
        """Return the server's URL; the login is only for Flower's own connection."""
        if include_password:
            return self.redis_server.celery_url(with_login=True)
        return self.redis_server.public_url

    def __eqhash__(self) -> HashedSeq:
        # Kombu shares pools of connections that are equal by this: another login is another pool.
        server = self.redis_server
        return HashedSeq(
            __name__,
            server.celery_url(with_login=True),
            repr(server.tls),
            repr(self.transport_options),
        )


class _Pool(_KombuPool):  # type: ignore[misc]  # see above
    """Kombu's pool makes connections of its own class, with its own transport."""

    def new(self) -> PooledConnection:
        pooled: type[PooledConnection] = self.connection.pooled
        return pooled(self, **dict(self.connection._info(resolve=False)))


def amqp_for(server: RedisUrl) -> type[AMQP]:
    """Return the class by which a Celery application makes its connections to `server`."""

    class ServerConnection(_BrokerConnection):
        redis_server = server

    class PooledServerConnection(ServerConnection, PooledConnection):
        # The server may have closed it while it was idle.
        publish_retries = 1

    ServerConnection.pooled = PooledServerConnection

    class ServerAmqp(AMQP):
        Connection = ServerConnection

    return ServerAmqp
