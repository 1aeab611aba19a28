"""The doorbell: a Celery message that wakes a pump. It carries no job.

A lost, duplicate or reordered doorbell only causes a delay: every worker's sweep rings again while
jobs are ready. So `ring` never raises, and a web request does not fail because of it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..schemas import Settings
from .message import DISPATCH_TASK, queue_name

if TYPE_CHECKING:
    from .separate_celery import SeparateCelery

#: Timeout for the broker. A longer timeout would delay web requests.
_TIMEOUT_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Doorbell:
    """Rings through a separate Celery application, which each process creates at first use."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: SeparateCelery | None = None
        self._pid = 0

    def ring(self) -> bool:
        """Wake a worker. Return whether the broker accepted the message. Never raise."""
        try:
            self._celery().send_task(
                DISPATCH_TASK, queue=queue_name(self._settings), ignore_result=True, retry=False
            )
        except Exception as error:  # noqa: BLE001 - the job is stored; its id must be returned
            logger.warning(
                "the doorbell was not rung: %s; the next sweep will ring it",
                type(error).__name__,
                extra={"action": "doorbell_failed"},
            )
            return False
        return True

    def _celery(self) -> SeparateCelery:
        # Do not share a connection that was inherited over fork (gunicorn --preload, Celery's
        # children).
        if self._app is None or self._pid != os.getpid():
            self._app = _publisher(self._settings)
            self._pid = os.getpid()
        return self._app


def _publisher(settings: Settings) -> SeparateCelery:
    # Celery is slow to import, and most processes that import a producer (management commands,
    # tests, reloads) never ring.
    from .separate_celery import SeparateCelery, fail_fast_transport  # noqa: PLC0415

    app = SeparateCelery("harasocial-doorbell", settings, **fail_fast_transport(_TIMEOUT_SECONDS))
    app.conf.update(broker_connection_timeout=_TIMEOUT_SECONDS)
    return app
