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
    """An application that connects to the Redis of `settings`, and stays within its namespace.

    Celery lets the environment overrule an application: CELERY_BROKER_URL names its broker,
    CELERY_RESULT_BACKEND where its results go, CELERY_LOADER and CELERY_CONFIG_MODULE all that is
    left open, and with DJANGO_SETTINGS_MODULE it sets up Django. Where a web app has these for its
    own Celery, doorbells would go to that one's broker, where nobody answers them.

    Everything that Celery sends over Redis is named by the namespace: doorbells, events, control
    commands and their replies. Applications that share a database do not reach each other.

    It keeps no results, and is never the current application.

    Args:
        main: the application's name.
        settings: `redis_url` and `namespace` are used.
        transport_options: kombu's, such as those of `impatient_transport`. Options in `redis_url`
            take precedence.

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
            # Holds neither the login nor options: Celery and Flower show this URL.
            broker=server.celery_url(),
            amqp=amqp_for(server),
        )
        namespace = settings.namespace
        self.conf.update(
            task_default_queue=queue_name(settings),
            control_exchange=f"{namespace}.control",
            event_exchange=f"{namespace}.events",
            event_queue_prefix=f"{namespace}.events",
            # Pickles are code; whoever can write to the broker must not run any here.
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
        """Run Celery's command line and return its exit status, which Celery's own loses."""
        # Celery imports it here as well: a web app has no use for a command line.
        from celery.bin.celery import celery as command  # noqa: PLC0415

        command.params[0].default = self
        try:
            return command.main(args=argv, standalone_mode=False) or 0
        finally:
            command.params[0].default = None


def impatient_transport(timeout_seconds: float) -> dict[str, Any]:
    """Return options of kombu's transport by which Redis takes a message within the time, or not.

    The time (seconds) is for connecting and for the answer, each; nothing is tried again.
    """
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry_on_timeout": False,
        "max_retries": 0,
    }
