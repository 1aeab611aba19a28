"""Celery's connection to Redis, with the same security and robustness as the ledger's connection.

This module corrects these problems of kombu 5.7:

- kombu reads the login and the TLS options from the broker's URL, which Celery displays in many
places, and does not verify certificates by default. Here they come from the parsed setting, and
Celery's URL contains no secret.
- A worker's main process ends in three cases: if the connection breaks while a message is not
acknowledged (kombu returns the message over the broken connection), if Redis refuses a command (a
replica, or a full server), and after a message that is not from Celery.
- kombu waits without a timeout for the rest of a partly received broadcast, and waits up to 30
seconds between two attempts to connect.
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

#: Delays between two attempts to connect, in seconds: the first, the increment, and the maximum.
_RETRY_SECONDS = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}
#: Suffix of the names of queues for control commands and their replies.
_MAILBOX = ".pidbox"

logger = logging.getLogger(__name__)


# The types of kombu in celery-types lack the methods that are overridden here.
_KombuChannel: Any = kombu_redis.Channel
_KombuConnection: Any = Connection
_KombuPool: Any = ConnectionPool


class _Channel(_KombuChannel):  # type: ignore[misc]  # see above
    #: Do not return unacknowledged doorbells to the queue: the sweep rings again.
    do_restore = False

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        server = self.connection.client.redis_server
        ours = {
            "username": server.username,
            "password": server.password,
            # kombu omits it for a Unix socket.
            "socket_connect_timeout": self.socket_connect_timeout,
            "parser_class": PunctualParser,
        }
        return {**super()._connparams(asynchronous), **ours}

    def _brpop_read(self, **options: Any) -> bool:
        """Validate and deliver the message that a BRPOP returned."""
        connection = self.client.connection
        try:
            try:
                answer = self.client.parse_response(connection, "BRPOP", **options)
            except self.connection_errors:
                # The next iteration reconnects.
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
        """Validate and deliver a broadcast. Unlike kombu's method, this one has a timeout."""
        try:
            # redis-py reads without a timeout if `block` is true.
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
    """kombu's transport for Redis, which also reconnects after Redis refuses a command."""

    Channel = _Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, ResponseError)


class _BrokerConnection(_KombuConnection):  # type: ignore[misc]  # see above
    """A connection to `redis_server`, which subclasses set."""

    redis_server: ClassVar[RedisUrl]
    pooled: ClassVar[type[PooledConnection]]
    #: Without retries: Celery replaces a dedicated connection that is lost.
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
        # By default, Celery retries to publish heartbeats and replies without limit. Meanwhile the
        # worker's main process handles nothing else.
        retries = self.publish_retries if max_retries is None else max_retries
        return super().ensure(obj, fun, errback, retries, **options)  # type: ignore[no-any-return]

    def Pool(self, limit: int | None = None, **options: Any) -> ConnectionPool:  # noqa: N802 - kombu's
        return _Pool(self, limit, **options)

    def as_uri(self, include_password: bool = False, *_: Any, **__: Any) -> str:
        """Return the server's URL. Only Flower's own connection gets the login."""
        if include_password:
            return self.redis_server.celery_url(with_login=True)
        return self.redis_server.public_url

    def __eqhash__(self) -> HashedSeq:
        # kombu shares a pool between connections that are equal by this hash. Each login needs its
        # own pool.
        server = self.redis_server
        return HashedSeq(
            __name__,
            server.celery_url(with_login=True),
            repr(server.tls),
            repr(self.transport_options),
        )


class _Pool(_KombuPool):  # type: ignore[misc]  # see above
    """A pool of our connections. kombu's pool creates connections of kombu's class."""

    def new(self) -> PooledConnection:
        pooled: type[PooledConnection] = self.connection.pooled
        return pooled(self, **dict(self.connection._info(resolve=False)))


def amqp_for(server: RedisUrl) -> type[AMQP]:
    """Return the class with which a Celery application connects to `server`."""

    class ServerConnection(_BrokerConnection):
        redis_server = server

    class PooledServerConnection(ServerConnection, PooledConnection):
        # Retry once: the server may have closed the idle connection.
        publish_retries = 1

    ServerConnection.pooled = PooledServerConnection

    class ServerAmqp(AMQP):
        Connection = ServerConnection

    return ServerAmqp
