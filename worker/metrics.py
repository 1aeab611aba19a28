"""The worker's metrics for Prometheus: counted in every process, served over HTTP by the main one.

What the worker does is counted here, in tallies that its processes report; what the ledger holds
is read when Prometheus asks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import start_http_server

from ..ledger import Ledger, UnknownOutcome, Unsent
from ..schemas import Settings, SettingsError
from .ledger_metrics import registry_of
from .pump import Done
from .reporting import Receiver, Reporter
from .tally import DOORBELL, REPAIR, Tally, Totals, tally_of, tally_of_swept, tally_of_unsent

#: For Redis to answer a scrape, whose own limit is 10 seconds if nobody set it.
_LEDGER_TIMEOUT_SECONDS = 2.0


class Metrics:
    """Counts, if the settings name a port; else every method does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = settings.metrics_port > 0
        self._totals = Totals()
        self._add: Callable[[Tally], None] = self._totals.add
        self._reporter: Reporter | None = None
        #: The process that serves. A child made by fork inherits the number, but has another.
        self._main_pid = 0

    def serve(self) -> None:
        """Begin to serve, in the worker's main process, before its pool is made.

        Raises:
            SettingsError: the address cannot be listened on.
        """
        if not self._on or self._main_pid == os.getpid():
            return
        host, port = self._settings.metrics_host, self._settings.metrics_port
        self._ledger = Ledger(self._settings, timeout_seconds=_LEDGER_TIMEOUT_SECONDS)
        registry = registry_of(self._ledger)
        registry.register(self._totals)
        try:
            self._receiver = Receiver(self._totals.add)
        except OSError as error:
            raise SettingsError(
                "HARASOCIAL_METRICS_PORT is set, but the temporary folder takes no socket: "
                f"{error}; set TMPDIR to another folder with a short name"
            ) from None
        try:
            self._server, _ = start_http_server(port, host, registry)
        except OSError as error:
            self._receiver.stop()
            raise SettingsError(
                f"HARASOCIAL_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}; "
                "take another port (each worker of a host needs its own), or 0 for no metrics"
            ) from None
        self._main_pid = os.getpid()

    def report(self) -> None:
        """Say that this is a process of the pool; one that is not (solo) goes on as it is."""
        if not self._on or self._main_pid == os.getpid():
            return
        if self._main_pid:
            # Inherited over fork: it must not hold the port when the main process is gone.
            self._server.socket.close()
        self._reporter = Reporter()
        self._add = self._reporter.add

    def stop(self) -> None:
        """Stop serving."""
        if self._main_pid != os.getpid():
            return
        self._main_pid = 0
        self._server.shutdown()
        self._server.server_close()
        self._receiver.stop()
        self._ledger.close()

    def observe(self, batch: list[Done]) -> None:
        """Count a batch of recorded results. Neither blocks nor raises."""
        if self._on:
            self._add(tally_of(batch))

    def observe_swept(self, jobs: Iterable[UnknownOutcome]) -> None:
        """Count jobs whose lease ran out."""
        if self._on:
            self._add(tally_of_swept(jobs))

    def observe_unsent(self, jobs: Iterable[Unsent]) -> None:
        """Count jobs that the ledger failed without an attempt."""
        if self._on:
            self._add(tally_of_unsent(jobs))

    def observe_repairs(self, count: int) -> None:
        """Count keys of the ledger that another client had changed, and that were repaired."""
        if self._on and count:
            self._add(Counter({REPAIR: count}))

    def count_doorbell(self) -> None:
        """Count a doorbell that was rung."""
        if self._on:
            self._add(Counter((DOORBELL,)))

    def flush(self) -> None:
        """Report what was not reported yet, as at the end of a dispatch."""
        if self._reporter is not None:
            self._reporter.flush()
