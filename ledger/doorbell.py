"""The doorbell: a Celery message that wakes a pump. It carries no job.

A doorbell lost, doubled or reordered changes nothing but delay: the sweep of every worker rings
again while anything is ready. So ringing never raises; a web request does not fail for it.
"""

from __future__ import annotations

import logging
import os
from urllib.parse import parse_qs, urlsplit

from kombu.exceptions import OperationalError

from ..schemas import Settings
from .separate_celery import SeparateCelery, impatient_transport

#: The task that a doorbell runs.
DISPATCH_TASK = "harasocial.dispatch"

#: Waiting longer than this for the broker would hold up a web request.
_TIMEOUT_SECONDS = 0.5

logger = logging.getLogger(__name__)


def queue_name(settings: Settings) -> str:
    """Return the queue that doorbells of this namespace go to."""
    return f"{settings.namespace}.dispatch"


def broker_url(settings: Settings) -> str:
    """Return `redis_url` as kombu spells it (a Unix socket has another scheme there)."""
    parts = urlsplit(settings.redis_url)
    if parts.scheme != "unix":
        return settings.redis_url
    database = parse_qs(parts.query).get("db", ["0"])[0]
    credentials = f":{parts.password}@" if parts.password else ""
    return f"redis+socket://{credentials}{parts.path}?virtual_host={database}"


class Doorbell:
    """Rings through a small Celery application of its own, made at first use in each process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: SeparateCelery | None = None
        self._pid = 0

    def ring(self) -> bool:
        """Wake a worker. Returns whether the broker took the message; never raises."""
        try:
            self._celery().send_task(
                DISPATCH_TASK, queue=queue_name(self._settings), ignore_result=True, retry=False
            )
        except (OperationalError, OSError) as error:
            logger.warning(
                "the doorbell could not be rung: %s; the next sweep will ring it",
                type(error).__name__,
                extra={"action": "doorbell_failed"},
            )
            return False
        return True

    def _celery(self) -> SeparateCelery:
        # A connection inherited over fork (gunicorn --preload, Celery's children) would be shared.
        if self._app is None or self._pid != os.getpid():
            self._app = _publisher(self._settings)
            self._pid = os.getpid()
        return self._app


def _publisher(settings: Settings) -> SeparateCelery:
    app = SeparateCelery("harasocial-doorbell", broker=broker_url(settings))
    app.conf.update(
        broker_connection_timeout=_TIMEOUT_SECONDS,
        broker_transport_options=impatient_transport(_TIMEOUT_SECONDS),
        task_serializer="json",
        task_default_queue=queue_name(settings),
    )
    return app
