"""`/metrics`: Flower's own metrics, and gauges of the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry
from tornado.web import HTTPError

from ...ledger.reading.gauges import registry_of
from ..site import Site

if TYPE_CHECKING:
    from tornado.web import RequestHandler as FlowerMetrics  # Flower ships no types
else:
    from flower.views.monitor import Metrics as FlowerMetrics

_WHY_NOT = (
    "# The metrics of harasocial-dispatch need the login: set basic_auth in the scrape_config of "
    "Prometheus.\n"
)


class MetricsHandler(FlowerMetrics):
    """The metrics. Flower's own need no login. The ledger's contain page ids, so they need one."""

    def initialize(self, site: Site) -> None:
        self._threads = site.threads
        self._registry: CollectorRegistry = registry_of(site.ledger.reader)

    async def get(self) -> None:
        await super().get()  # type: ignore[misc]  # Flower's is a coroutine
        try:
            known = bool(self.current_user)
        except HTTPError:
            known = False
        if not known:
            self.write(_WHY_NOT)
            return
        loop = self.application.io_loop  # type: ignore[attr-defined]  # Flower's application
        text = await loop.run_in_executor(
            self._threads, prometheus_client.generate_latest, self._registry
        )
        self.write(text)
