"""Celery's connection to Redis, made to outlive Redis.

kombu 5.7 ends a worker's main process in three cases that a doorbell does not deserve: when the
connection breaks while a message is unacknowledged (it tries to give that back over the broken
connection); when Redis refuses a command, as one does that has become a replica or is full; and
when other hands put something into the queue that is not JSON. And it waits up to 30 seconds
between attempts to connect again. All this is set right here.
"""

from __future__ import annotations

from json import JSONDecodeError
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from redis.exceptions import ResponseError

#: Between two attempts to connect, in seconds: the first, what each adds, and the longest.
_RETRY_SECONDS = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}


class _Channel(kombu_redis.Channel):
    #: A doorbell that was not acknowledged need not be given back: the sweep rings again.
    do_restore = False


class Transport(kombu_redis.Transport):
    """kombu's transport for Redis, where a refusal or rubbish means: connect again, go on."""

    Channel = _Channel
    connection_errors = (
        *kombu_redis.Transport.connection_errors,
        ResponseError,
        JSONDecodeError,
    )


class _Connection(Connection):
    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, **{**kwargs, **_RETRY_SECONDS})


class Amqp(AMQP):
    """What Celery makes its connections with."""

    Connection = _Connection


def use_this_transport() -> None:
    """Have kombu take this module's transport for redis:// and rediss:// in this process.

    Through kombu's own register rather than Celery's `broker_transport`, so that logs and Flower
    show the broker's URL as everybody knows it.
    """
    name = f"{Transport.__module__}:{Transport.__qualname__}"
    TRANSPORT_ALIASES.update(redis=name, rediss=name)
