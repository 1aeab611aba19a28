"""Celery applications of this package, separate from that of the host application."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader
from kombu import Connection

from ..ledger.connection import redis_server
from ..schemas import Settings
from .message import queue_name
from .transport import amqp_for


class _Loader(AppLoader):
    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class SeparateCelery(Celery):
    """An application that connects only to the Redis server and namespace of `settings`.

    Environment variables take precedence over the configuration of a Celery application:
        CELERY_BROKER_URL, CELERY_RESULT_BACKEND, CELERY_LOADER and CELERY_CONFIG_MODULE. With
        DJANGO_SETTINGS_MODULE, Celery also sets up Django. If a web app sets these variables for
        its own Celery, doorbells would go to the wrong broker. This class ignores them.

    The namespace is part of the name of everything that Celery sends over Redis: doorbells, events,
        control commands and their replies. So applications that share a database are isolated.

    The application stores no results, and it is never the current application.

    Args:
        main: the application's name.
        settings: `redis_url` and `namespace` are used.
        transport_options: options of kombu's transport, such as those of `fail_fast_transport`.
            Options in `redis_url` take precedence.

    Raises:
        SettingsError: `redis_url` is not usable.
    """

    backend_cls = "disabled"

    def __init__(self, main: str, settings: Settings, **transport_options: Any) -> None:
        server = redis_server(settings.redis_url)
        super().__init__(
            main,
            loader=_Loader,
            fixups=[],
            set_as_current=False,
            # Celery and Flower display this URL, so it contains neither the login nor options.
            broker=server.celery_url(),
            amqp=amqp_for(server),
        )
        namespace = settings.namespace
        self.conf.update(
            task_default_queue=queue_name(settings),
            control_exchange=f"{namespace}.control",
            event_exchange=f"{namespace}.events",
            event_queue_prefix=f"{namespace}.events",
            # Accept no pickles: they can run code of any client that can write to the broker.
            task_serializer="json",
            event_serializer="json",
            accept_content=["json"],
            broker_use_ssl=server.tls or None,
            broker_transport_options={**transport_options, **server.connection},
        )

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        return super().connection_for_read(url or self.conf["broker_url"], **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        return super().connection_for_write(url or self.conf["broker_url"], **options)

    def connection(self, hostname: str | None = None, *more: Any, **options: Any) -> Connection:
        return super().connection(hostname or self.conf["broker_url"], *more, **options)

    def start(self, argv: list[str] | None = None) -> Any:
        """Run Celery's command line and return its exit status. Celery's method loses it."""
        # Imported here as in Celery, because a web app does not need the command line.
        from celery.bin.celery import celery as command  # noqa: PLC0415

        command.params[0].default = self
        try:
            return command.main(args=argv, standalone_mode=False) or 0
        finally:
            command.params[0].default = None


def fail_fast_transport(timeout_seconds: float) -> dict[str, Any]:
    """Return options of kombu's transport that make it fail fast, without retries.

    `timeout_seconds` is the timeout for connecting and the timeout for each reply.
    """
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry_on_timeout": False,
        "max_retries": 0,
    }
