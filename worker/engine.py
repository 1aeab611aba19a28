"""What one process needs to send: made at its first dispatch, kept for all later ones."""

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

#: A second dispatch in the same process (Celery's pool of threads) waits this long (seconds) for
#: one that is just ending; one that goes on sends what is ready itself.
_WAIT_FOR_PUMP_SECONDS = 0.5

#: Clients of a parent process, which must not be closed here.
_inherited: list[Client] = []


class Engine:
    """Runs one pump at a time in this process, whatever Celery's pool.

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
        """Send what is ready; return how many jobs ended how, by state."""
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
            doorbell = Doorbell(settings)
            thread = self._ledger_thread = InterruptibleExecutor(1, "ledger")
            # After the visit under way: a slow broker must not delay what it claimed.
            self._ledger = Ledger(
                settings,
                ring=lambda: thread.submit(doorbell.ring),
                on_page_change=log_page_change,
            )
            endpoint = Endpoint(settings)
            self._sender = Sender(endpoint=endpoint, tokens=Tokens(settings), settings=settings)
            self._client = Client(
                endpoint,
                connect_timeout_seconds=settings.connect_timeout_seconds,
                read_timeout_seconds=settings.read_timeout_seconds,
            )
            self._pid = os.getpid()
