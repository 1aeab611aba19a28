"""Scrapes of real workers: what Prometheus would see."""

from __future__ import annotations

from collections.abc import Callable
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from stage import StartWorker, WorkerProcess, free_port

#: A sample's name and labels, in the order of their names, to its value.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
#: What the fixture `start_scraped` is.
StartScraped = Callable[..., tuple[WorkerProcess, "Scrape"]]


class Scrape:
    """The address of a worker's metrics."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/metrics"

    def __call__(self) -> Samples:
        """Return all samples of one scrape."""
        with urlopen(self.url, timeout=10) as reply:
            text = reply.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return one sample's value, 0 if there is none."""
        return self().get((f"harasocial_{name}", tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def start_scraped(start_worker: StartWorker) -> StartScraped:
    """Start a worker that serves metrics; the rest as with `start_worker`."""

    def start(*options: str, **changes: object) -> tuple[WorkerProcess, Scrape]:
        port = free_port()
        worker = start_worker(*options, METRICS_PORT=port, **changes)
        return worker, Scrape(port)

    return start
