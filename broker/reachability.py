"""Test whether Celery can reach its broker, for the command `check`."""

from __future__ import annotations

from typing import Any

from ..ledger.connection import translated_errors
from ..schemas import Settings
from .message import queue_name
from .separate_celery import SeparateCelery, fail_fast_transport


def inspect_broker(settings: Settings, *, timeout_seconds: float = 2.0) -> None:
    """Connect to the server through Celery, as doorbells and workers do.

    Declares the queue of doorbells, and subscribes to control commands.

    Raises:
        QueueUnavailable: the connection or a command failed.
        SettingsError: `redis_url` is not usable.
    """
    app = SeparateCelery("harasocial-check", settings, **fail_fast_transport(timeout_seconds))
    with translated_errors(settings.redis_url), app.connection_for_read() as connection:
        connection.connect()
        channel: Any = connection.default_channel
        app.amqp.queues[queue_name(settings)](channel).declare()
        commands = channel.client.pubsub()
        commands.psubscribe(f"{channel.keyprefix_fanout}{app.conf.control_exchange}.pidbox")
        commands.get_message(timeout=timeout_seconds)
        commands.close()
