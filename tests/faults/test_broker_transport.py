"""The worker's connection to the broker outlives what ends it with kombu's own transport."""

from __future__ import annotations

import kombu
import pytest
import redis
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.worker.broker import Amqp, Transport
from kombu.transport.redis import Transport as KombusTransport
from redis.exceptions import ResponseError


def _given_back_when_closed(transport: type) -> int:
    """Take a message, close without acknowledging it, and count what is in the queue then."""
    with EmbeddedValkey() as server:
        connection = kombu.Connection(server.url, transport=transport)
        queue = kombu.Queue("doorbells")(connection.default_channel)
        queue.declare()
        connection.Producer().publish("ring", routing_key="doorbells")
        assert queue.get(no_ack=False) is not None
        connection.close()
        return int(redis.Redis.from_url(server.url).llen("doorbells"))


def test_an_unacknowledged_doorbell_is_not_given_back() -> None:
    """Giving it back over a connection that broke is what ends a worker's main process."""
    assert _given_back_when_closed(KombusTransport) == 1
    assert _given_back_when_closed(Transport) == 0


def test_a_refusal_means_connect_again() -> None:
    """Celery goes on after a connection error, and ends after any other."""
    with EmbeddedValkey() as server:
        connection = kombu.Connection(server.url, transport=Transport)
        channel = connection.channel()
        with pytest.raises(connection.connection_errors) as refused:
            channel.client.execute_command("NO-SUCH-COMMAND")
        assert isinstance(refused.value, ResponseError)
        connection.release()


def test_attempts_to_connect_are_never_far_apart() -> None:
    """At most two seconds, where kombu's own grow to thirty."""
    waits: list[float] = []

    def note(_: Exception, interval: float) -> None:
        waits.append(interval)
        if len(waits) == 6:
            raise KeyboardInterrupt

    connection = Amqp.Connection("redis://127.0.0.1:1/0", connect_timeout=1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("kombu.utils.functional.sleep", lambda _: None)
        connection.ensure_connection(note)

    assert max(waits) <= 2
