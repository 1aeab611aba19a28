"""The ledger's contents as Prometheus gauges, read at each scrape.

Every process returns the same values, so it is enough to scrape one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ...schemas import QueueUnavailable, sanitize
from ...schemas.pause_reasons import PAUSE_REASONS
from .pauses import MANUAL
from .reader import Reader

#: Maximum number of error codes, and of pages, with their own label; the rest are `other`.
TOP = 20
_MAX_LABEL_CHARACTERS = 64


class LedgerCollector(Collector):
    """Reads the ledger at each scrape. If Redis is down, only `harasocial_ledger_up` exists."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the ledger."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges."""
        try:
            gauges = list(self._gauges())
        except QueueUnavailable:
            gauges = []
        yield _gauge("ledger_up", "Whether Redis replied.", float(bool(gauges)))
        yield from gauges

    def _gauges(self) -> Iterator[Metric]:
        reader = self._reader
        states = GaugeMetricFamily("harasocial_jobs", "Jobs by state.", labels=["state"])
        for state, count in reader.count_states().items():
            states.add_metric([state.value], count)
        yield states
        yield _top(
            "failed_jobs",
            "Failed jobs by error code.",
            "error_code",
            reader.count_by_error_code().by_name,
        )
        yield _top(
            "waiting_jobs",
            "Jobs that wait in a page's lane.",
            "page_id",
            reader.waiting_by_page(limit=None),
        )
        paused = GaugeMetricFamily("harasocial_paused_pages", "Paused pages.", labels=["reason"])
        reasons = [pause.reason for pause in reader.pauses()]
        for reason in (*PAUSE_REASONS, MANUAL):
            paused.add_metric([reason], reasons.count(reason))
        yield paused
        backlog = reader.backlog()
        yield _gauge("due_jobs", "Jobs that are due and not yet queued.", backlog.due)
        yield _gauge(
            "oldest_waiting_seconds",
            "Age of the oldest job that may be sent now, since it was enqueued or its send_at.",
            backlog.oldest_seconds,
        )


def registry_of(reader: Reader) -> CollectorRegistry:
    """Return a registry with the gauges of one ledger."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LedgerCollector(reader))
    return registry


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"harasocial_{name}", help_text, value=value)


def _top(name: str, help_text: str, label: str, counts: dict[str, int]) -> Metric:
    gauge = GaugeMetricFamily(f"harasocial_{name}", help_text, labels=[label])
    # The counts are sorted, the most frequent first.
    for key, count in islice(counts.items(), TOP):
        gauge.add_metric([sanitize(key, _MAX_LABEL_CHARACTERS)], count)
    gauge.add_metric(["other"], sum(list(counts.values())[TOP:]))
    return gauge
