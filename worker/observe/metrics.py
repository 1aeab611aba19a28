"""The worker's metrics for Prometheus, served over HTTP by the main process.

Child processes send their observations to the main process. The metrics of the ledger are read at
each scrape.
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

#: Timeout for Redis during a scrape. Prometheus's default timeout for a scrape is 10 seconds.
_LEDGER_TIMEOUT_SECONDS = 2.0


class Metrics:
    """The metrics. Without a port in the settings, every method does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._on = settings.metrics_port > 0
        self._totals = MetricTotals()
        self._add: Callable[[Iterable[Observation]], None] = self._totals.add
        self._sender: ObservationSender | None = None
        #: The id of the process that serves. A forked child inherits this value but has another id.
        self._main_pid = 0

    def serve(self) -> None:
        """Start to serve, in the worker's main process, before the pool is created.

        Raises:
            SettingsError: the server cannot listen on the address.
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
                f"HARASOCIAL_METRICS_PORT: cannot listen on {host}:{port}: {error.strerror}; "
                "choose another port (each worker on a host needs its own), or 0 for no metrics"
            ) from None
        self._channel = Channel(self._totals.add)
        self._main_pid = os.getpid()

    def report(self) -> None:
        """In a child process of the pool, send observations to the main process."""
        if not self._main_pid or self._main_pid == os.getpid():
            return
        # Close the inherited server, so that the port is free when the main process has ended.
        self._server.socket.close()
        self._sender = self._channel.sender()
        self._add = self._sender.add

    def stop(self) -> None:
        """Stop the server."""
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
        """Count repaired keys, which another client had changed."""
        if self._on and count:
            self._add([("repairs", count)])

    def count_doorbell(self) -> None:
        """Count a doorbell that was rung."""
        if self._on:
            self._add([("doorbells", 1)])

    def flush(self) -> None:
        """Send the observations that are not yet sent, at the end of a dispatch."""
        if self._sender is not None:
            self._sender.flush()
