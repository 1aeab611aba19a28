"""The worker's connection to the broker outlives what ends it with kombu's own transport."""

from __future__ import annotations

import kombu
import pytest
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.worker.broker import Amqp, Transport
from kombu.transport.redis import Transport as KombusTransport
from redis.exceptions import ResponseError


def _close_with_an_unacknowledged_message(transport: type) -> None:
    """As Celery does when the broker goes away while a doorbell is unacknowledged."""
    with EmbeddedValkey() as server:
        connection = kombu.Connection(server.url, transport=transport)
        queue = connection.SimpleQueue("doorbells")
        queue.put("ring")
        assert queue.get(timeout=5) is not None
        server.kill()
        connection.collect(socket_timeout=1)
        connection.close()


def test_a_connection_that_breaks_with_an_unacknowledged_message_is_just_closed() -> None:
    """With kombu's own transport this ends the worker's main process; with ours it does not."""
    with pytest.raises(AttributeError):
        _close_with_an_unacknowledged_message(KombusTransport)

    _close_with_an_unacknowledged_message(Transport)


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
