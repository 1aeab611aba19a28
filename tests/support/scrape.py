"""Scrape a worker's metrics, and look up samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.request import urlopen

from harasocial_dispatch.schemas import Settings
from prometheus_client.parser import text_string_to_metric_families

from .harness import WorkerProcess

#: The labels of a sample, ordered by name.
Labels = tuple[tuple[str, str], ...]
#: The type of the fixture `start_scraped`.
StartScraped = Callable[..., tuple[WorkerProcess, "Scrape"]]


class Scrape:
    """The metrics of a worker: current ones, or a saved scrape."""

    def __init__(self, port: int, kept: str | None = None) -> None:
        self.port = port
        self._kept = kept

    def keep(self) -> Scrape:
        """Save the current scrape. Later, pauses end and waiting jobs are sent."""
        return Scrape(self.port, self.text())

    def text(self) -> str:
        if self._kept is not None:
            return self._kept
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as reply:
            text: str = reply.read().decode()
            return text

    def samples(self) -> dict[tuple[str, Labels], float]:
        """Return all samples of one scrape."""
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a sample, or 0 if it does not exist."""
        return self.samples().get((f"harasocial_{name}", tuple(sorted(labels.items()))), 0.0)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return the number of outcomes by state and error code, without zeros."""
        return {
            (dict(labels)["state"], dict(labels)["error_code"]): int(value)
            for (name, labels), value in self.samples().items()
            if name == "harasocial_outcomes_total" and value
        }


@dataclass
class MixedTraffic:
    """A worker that has processed all kinds of jobs, and these jobs."""

    worker: WorkerProcess
    scrape: Scrape
    settings: Settings
    #: Outcome → its jobs.
    jobs: dict[str, list[str]] = field(default_factory=dict)


#: Problem → its page.
REFUSED_PAGE, SLOW_PAGE, GOOD_PAGE = "401", "429", "200"
RECIPIENT = "2560816460648749"
