"""The doorbell: a Celery message that wakes a pump. It carries no job.

A doorbell that is lost, doubled or reordered only costs delay: the sweep of every worker rings
again while anything is ready. So ringing never raises; a web request does not fail for it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from ..schemas import Settings
from .message import DISPATCH_TASK, queue_name

if TYPE_CHECKING:
    from .separate_celery import SeparateCelery

#: Waiting longer than this for the broker would hold up a web request.
_TIMEOUT_SECONDS = 0.5

logger = logging.getLogger(__name__)


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
        except Exception as error:  # noqa: BLE001 - the job is stored: the caller must get its id
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
    # Celery takes longer to import than the rest of a producer together, and most processes that
    # import a producer (management commands, tests, reloads) never ring.
    from .separate_celery import SeparateCelery, impatient_transport  # noqa: PLC0415

    app = SeparateCelery("harasocial-doorbell", settings, **impatient_transport(_TIMEOUT_SECONDS))
    app.conf.update(broker_connection_timeout=_TIMEOUT_SECONDS)
    return app
