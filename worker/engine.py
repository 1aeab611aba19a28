"""The sending objects of a process: created at its first dispatch, and kept for later ones."""

from __future__ import annotations

import os
import threading

from ..broker import Doorbell
from ..ledger import Ledger
from ..schemas import Settings
from . import shutdown
from .http import Client, Endpoint
from .interruptible_executor import InterruptibleExecutor
from .observe.page_log import log_page_change
from .observe.recorded import Observer, log
from .open_files import raise_open_file_limit
from .pump import Pump
from .sender import Sender
from .tokens import Tokens

#: How long a second dispatch in the same process (Celery's thread pool) waits for a pump that is
#: ending. A pump that continues sends the ready jobs itself.
_WAIT_FOR_PUMP_SECONDS = 0.5

#: Clients inherited from a parent process. They must not be closed here.
_inherited: list[Client] = []


class Engine:
    """Runs one pump at a time in this process, with any of Celery's pools.

    Args:
        observe: called with each batch of recorded results.
    """

    def __init__(self, settings: Settings, observe: Observer = log) -> None:
        self._settings = settings
        self._observe = observe
        self._starting = threading.Lock()
        self._client: Client
        self._pid = 0

    def dispatch(self) -> dict[str, int]:
        """Send ready jobs. Return the number of jobs by resulting state."""
        self._start_in_this_process()
        if not self._one_pump.acquire(timeout=_WAIT_FOR_PUMP_SECONDS):
            return {}
        try:
            return Pump(
                ledger=self._ledger,
                ledger_thread=self._ledger_thread,
                sender=self._sender,
                client=self._client,
                settings=self._settings,
                should_stop=shutdown.requested,
                observe=self._observe,
            ).run()
        finally:
            self._one_pump.release()

    def _start_in_this_process(self) -> None:
        # Connections and threads do not survive Celery's fork. With Celery's thread pool, two
        # threads may start at the same time.
        with self._starting:
            if self._pid == os.getpid():
                return
            if self._pid:
                # Keep a reference. Python closes a discarded event loop, and that would change the
                # parent's set of watched files, which is shared over fork.
                _inherited.append(self._client)
            settings = self._settings
            raise_open_file_limit(settings.in_flight)
            self._one_pump = threading.Lock()
            doorbell = Doorbell(settings)
            thread = self._ledger_thread = InterruptibleExecutor(1, "ledger")
            # Ring after the current visit to the ledger, so that a slow broker does not delay
            # claimed jobs.
            self._ledger = Ledger(
                settings,
                ring=lambda: thread.submit(doorbell.ring),
                on_page_change=log_page_change,
            )
            endpoint = Endpoint(settings)
            self._sender = Sender(endpoint=endpoint, tokens=Tokens(settings), settings=settings)
            self._client = Client(endpoint, settings)
            self._pid = os.getpid()
