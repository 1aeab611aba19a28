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
from .http import Client, Endpoint
from .open_files import raise_open_file_limit
from .pump import Done, Pump
from .sender import Sender
from .tokens import Tokens
from .unsent import UnsentObserver, log_unsent

#: A second dispatch in the same process (Celery's pool of threads) waits this long (seconds) for
#: one that is just ending; one that goes on sends what is ready itself.
_WAIT_FOR_PUMP_SECONDS = 0.5

logger = logging.getLogger(__name__)

#: Clients of a parent process, which must not be closed here.
_inherited: list[Client] = []

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
        self._client: Client
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
                ledger_thread=self._ledger_thread,
                sender=self._sender,
                client=self._client,
                settings=self._settings,
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
            if self._pid:
                # Closing the event loop, as Python does when it is discarded, would change the
                # set of files that the parent's loop waits for: a fork shares it.
                _inherited.append(self._client)
            settings = self._settings
            raise_open_file_limit(settings.in_flight)
            self._one_pump = threading.Lock()
            self._ledger = Ledger(settings)
            self._doorbell = Doorbell(settings)
            self._ledger_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
            endpoint = Endpoint(settings)
            self._sender = Sender(endpoint=endpoint, tokens=Tokens(settings), settings=settings)
            self._client = Client(
                endpoint,
                connect_timeout_seconds=settings.connect_timeout_seconds,
                read_timeout_seconds=settings.read_timeout_seconds,
            )
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
