"""What one process needs to send: made at its first dispatch, kept for all later ones."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..ledger import Doorbell, Ledger
from ..schemas import Settings
from . import shutdown
from .http_call import Endpoint
from .pump import Done, Pump
from .sender import Sender
from .tokens import Tokens
from .unsent import UnsentObserver, log_unsent

#: A second dispatch in the same process (Celery's pool of threads) waits this long (seconds) for
#: one that is just ending; one that goes on sends what is ready itself.
_WAIT_FOR_PUMP_SECONDS = 0.5

logger = logging.getLogger(__name__)


Observer = Callable[[list[Done]], None]


class Engine:
    """Runs one pump at a time in this process, whatever Celery's pool.

    Args:
        observers: called in turn with each batch of recorded results, after it was logged. They
            must neither block nor raise.
        observe_unsent: called with jobs that the ledger failed in place of letting them be sent.
    """

    def __init__(
        self,
        settings: Settings,
        observers: Sequence[Observer] = (),
        observe_unsent: UnsentObserver = log_unsent,
    ) -> None:
        self._settings = settings
        self._observe_unsent = observe_unsent
        self._observers = (_log, *observers)
        self._starting = threading.Lock()
        self._pid = 0

    def dispatch(self) -> dict[str, int]:
        """Send what is ready; return how many jobs ended how, by state."""
        self._start_in_this_process()
        if not self._one_pump.acquire(timeout=_WAIT_FOR_PUMP_SECONDS):
            return {}
        try:
            return Pump(
                ledger=self._ledger,
                doorbell=self._doorbell,
                sender=self._sender,
                settings=self._settings,
                threads=self._threads,
                should_stop=shutdown.requested,
                observe=self._observe,
                observe_unsent=self._observe_unsent,
            ).run()
        finally:
            self._one_pump.release()

    def _observe(self, batch: list[Done]) -> None:
        for observer in self._observers:
            observer(batch)

    def _start_in_this_process(self) -> None:
        # Connections and threads do not survive Celery's fork. Its pool of threads may ask for the
        # first time twice at once.
        with self._starting:
            if self._pid == os.getpid():
                return
            settings = self._settings
            self._one_pump = threading.Lock()
            self._ledger = Ledger(settings)
            self._doorbell = Doorbell(settings)
            self._sender = Sender(
                endpoint=Endpoint(settings), tokens=Tokens(settings), settings=settings
            )
            self._threads = ThreadPoolExecutor(settings.in_flight, thread_name_prefix="call")
            self._pid = os.getpid()


def _log(batch: list[Done]) -> None:
    """Log what did not go well: one line a job, without personal ids."""
    for done in batch:
        result = done.result
        if done.held and result.outcome.error_code is None:
            continue
        state = str(result.job_verdict.state) if done.held else "taken over by another worker"
        logger.warning(
            "job %s of page %s: %s (%s)",
            result.claim.job_id,
            result.claim.page_id,
            state,
            result.outcome.error_code,
            extra={
                "action": f"job_{result.job_verdict.state}" if done.held else "claim_lost",
                "job_id": result.claim.job_id,
                "page_id": result.claim.page_id,
                "error_code": result.outcome.error_code,
            },
        )
