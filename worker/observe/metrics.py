"""The worker's metrics for Prometheus: counted in every process, served over HTTP by the main one.

Child processes send what they observe to the main process. What the ledger holds is read at each
scrape.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from prometheus_client import start_http_server

from ...ledger import Ledger
from ...ledger.reading.gauges import registry_of
from ...schemas import Settings, SettingsError
from .channel import Channel, ObservationSender
from .observations import MetricTotals, Observation, observations_of
from .recorded import Recorded

#: For Redis to answer a scrape, whose own limit is 10 seconds if nobody set it.
_LEDGER_TIMEOUT_SECONDS = 2.0


class Metrics:
    """Counts, if the settings name a port; else every method does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = settings.metrics_port > 0
        self._totals = MetricTotals()
        self._add: Callable[[Iterable[Observation]], None] = self._totals.add
        self._sender: ObservationSender | None = None
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
        registry = registry_of(self._ledger.reader)
        registry.register(self._totals)
        try:
            self._server, _ = start_http_server(port, host, registry)
        except OSError as error:
            raise SettingsError(
                f"HARASOCIAL_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}; "
                "take another port (each worker of a host needs its own), or 0 for no metrics"
            ) from None
        self._channel = Channel(self._totals.add)
        self._main_pid = os.getpid()

    def report(self) -> None:
        """Send what is counted to the main process, in a child process of the pool."""
        if not self._main_pid or self._main_pid == os.getpid():
            return
        # Inherited over fork: it must not hold the port when the main process has ended.
        self._server.socket.close()
        self._sender = self._channel.sender()
        self._add = self._sender.add

    def stop(self) -> None:
        """Stop serving."""
        if self._main_pid != os.getpid():
            return
        self._main_pid = 0
        self._server.shutdown()
        self._server.server_close()
        self._channel.stop()
        self._ledger.close()

    def observe(self, batch: list[Recorded]) -> None:
        """Count a batch of recorded results. Neither blocks nor raises."""
        if self._on:
            self._add(observations_of(batch))

    def observe_repairs(self, count: int) -> None:
        """Count keys of the ledger that another client had changed, and that were repaired."""
        if self._on and count:
            self._add([("repairs", count)])

    def count_doorbell(self) -> None:
        """Count a doorbell that was rung."""
        if self._on:
            self._add([("doorbells", 1)])

    def flush(self) -> None:
        """Send what was not sent yet, as at the end of a dispatch."""
        if self._sender is not None:
            self._sender.flush()
