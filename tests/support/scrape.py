"""What Prometheus would see of a worker: its scrape, read and looked up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.request import urlopen

from harasocial_dispatch.schemas import Settings
from prometheus_client.parser import text_string_to_metric_families

from .harness import WorkerProcess

#: A sample's labels in the order of their names.
Labels = tuple[tuple[str, str], ...]
#: What the fixture `start_scraped` is.
StartScraped = Callable[..., tuple[WorkerProcess, "Scrape"]]


class Scrape:
    """A worker's metrics: as they are whenever it is asked or, kept, as they were."""

    def __init__(self, port: int, kept: str | None = None) -> None:
        self.port = port
        self._kept = kept

    def keep(self) -> Scrape:
        """Return what is there now, and stays: pauses end, and what waited is sent."""
        return Scrape(self.port, self.text())

    def text(self) -> str:
        if self._kept is not None:
            return self._kept
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
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
        """Return one sample's value, 0 if there is none."""
        return self.samples().get((f"harasocial_{name}", tuple(sorted(labels.items()))), 0.0)

    def outcomes(self) -> dict[tuple[str, str], int]:
        """Return how many outcomes there were by state and error code, without those at 0."""
        return {
            (dict(labels)["state"], dict(labels)["error_code"]): int(value)
            for (name, labels), value in self.samples().items()
            if name == "harasocial_outcomes_total" and value
        }


@dataclass
class Day:
    """A worker that has seen a bit of everything, and what was put before it."""

    worker: WorkerProcess
    scrape: Scrape
    settings: Settings
    #: Jobs by what became of them.
    jobs: dict[str, list[str]] = field(default_factory=dict)


#: Pages by what is wrong with them.
REFUSED_PAGE, SLOW_PAGE, GOOD_PAGE = "401", "429", "200"
RECIPIENT = "2560816460648749"
