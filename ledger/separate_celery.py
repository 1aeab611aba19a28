"""Celery, kept apart from that of the host application, which may run in the same process."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader
from kombu import Connection


class _Loader(AppLoader):
    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class SeparateCelery(Celery):
    """An application that is as its maker says, whatever the environment says of another one.

    Celery lets the environment overrule an application: CELERY_BROKER_URL names its broker,
    CELERY_RESULT_BACKEND where its results go, CELERY_LOADER and CELERY_CONFIG_MODULE all that is
    left open, and with DJANGO_SETTINGS_MODULE it sets up Django. Where a web app has these for its
    own Celery, doorbells would go to that one's broker, and nobody there answers them.

    It keeps no results, and is never the current application.
    """

    backend_cls = "disabled"

    def __init__(self, main: str | None = None, **options: Any) -> None:
        always = {"loader": _Loader, "fixups": [], "set_as_current": False}
        super().__init__(main, **{**options, **always})

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        return super().connection_for_read(url or self.conf["broker_url"], **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        return super().connection_for_write(url or self.conf["broker_url"], **options)

    def connection(self, hostname: str | None = None, *more: Any, **options: Any) -> Connection:
        return super().connection(hostname or self.conf["broker_url"], *more, **options)


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
