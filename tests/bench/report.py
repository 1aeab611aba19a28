"""The figures as tables, as plain ratios, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contenders import Contender
from measures import Figures
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Column:
    """How a figure is shown, and whether more of it is better."""

    title: str
    form: str
    more_is_better: bool = False


TABLES: dict[str, dict[str, Column]] = {
    "Sending, all enqueued before": {
        "jobs_per_second": Column("jobs/s", ",.0f", more_is_better=True),
        "cpu_us_per_job": Column("CPU µs/job", ",.0f"),
        "redis_cpu_us_per_job": Column("of Redis", ",.0f"),
        "lone_median_ms": Column("lone job ms", ".1f"),
        "lone_p99_ms": Column("p99", ".1f"),
        "slow_share_of_ideal": Column("at 200 ms, of ideal", ".0%", more_is_better=True),
        "sent_twice": Column("sent twice", ".0f"),
    },
    "Enqueueing": {
        "enqueue_one_per_second": Column("one by one/s", ",.0f", more_is_better=True),
        "enqueue_one_cpu_us": Column("CPU µs/job", ",.0f"),
        "enqueue_one_p50_ms": Column("p50 ms", ".2f"),
        "enqueue_one_p99_ms": Column("p99", ".2f"),
        "enqueue_batch_per_second": Column("in 500s, jobs/s", ",.0f", more_is_better=True),
        "enqueue_batch_cpu_us": Column("CPU µs/job ", ",.0f"),
        "redis_bytes_per_job": Column("Redis bytes/job", ",.0f"),
    },
}
#: What is told of each peer in words.
RATIOS = {
    "jobs_per_second": "jobs/s",
    "cpu_us_per_job": "CPU per job",
    "enqueue_one_cpu_us": "CPU to enqueue one",
    "enqueue_batch_cpu_us": "in 500s",
    "lone_median_ms": "lone job's latency",
    "redis_bytes_per_job": "Redis memory",
}
_COLUMNS = {name: column for table in TABLES.values() for name, column in table.items()}


@dataclass(slots=True)
class Report:
    """All samples: of each contender, the figures of each of its runs."""

    machine: Mapping[str, str]
    versions: dict[str, dict[str, str]]
    contenders: list[Contender]
    left_out: dict[str, str]
    #: Of each contender and figure, one value a run; the n-th of ours and of a peer's are of
    #: different moments, so medians are compared.
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, name: str, figures: Figures) -> None:
        """Keep the figures of one run."""
        of_contender = self.samples.setdefault(name, {})
        for figure, value in figures.items():
            of_contender.setdefault(figure, []).append(value)

    def leave_out(self, name: str, reason: str) -> None:
        """Forget a contender's figures: it could not do all that was asked."""
        self.left_out[name] = reason
        self.samples.pop(name, None)

    def medians(self) -> dict[str, Figures]:
        """Return each contender's figures, the median of its runs."""
        return {
            name: {figure: statistics.median(values) for figure, values in figures.items()}
            for name, figures in self.samples.items()
        }

    def ratios(self) -> dict[str, Figures]:
        """Return how many times better the first contender is than each other, by figure."""
        first, *others = self.medians().items()
        return {
            name: {
                figure: (
                    first[1][figure] / value
                    if _COLUMNS[figure].more_is_better
                    else value / first[1][figure]
                )
                for figure, value in figures.items()
                if figure in RATIOS
            }
            for name, figures in others
        }

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object."""
        return {
            "machine": dict(self.machine),
            "versions": self.versions,
            "how": {each.name: each.how for each in self.contenders},
            "left_out": self.left_out,
            "medians": self.medians(),
            "times_better": self.ratios(),
            "samples": self.samples,
        }

    def print(self, console: Console) -> None:
        """Print the tables and the ratios."""
        console.print(" · ".join(f"{name} {value}" for name, value in self.machine.items()))
        for each in self.contenders:
            found = ", ".join(f"{n} {v}" for n, v in self.versions[each.name].items())
            console.print(f"[bold]{each.name}[/]: {each.how} ({found})")
        for name, reason in self.left_out.items():
            console.print(f"[bold]{name}[/] is left out: {reason}")
        medians = self.medians()
        for title, columns in TABLES.items():
            table = Table(title=title, title_justify="left")
            table.add_column("")
            for column in columns.values():
                table.add_column(column.title, justify="right")
            for name, figures in medians.items():
                shown = [
                    format(figures[figure], column.form) if figure in figures else ""
                    for figure, column in columns.items()
                ]
                table.add_row(name, *shown)
            console.print(table)
        self._print_ratios(console)

    def _print_ratios(self, console: Console) -> None:
        if len(self.samples) < 2:
            return
        console.print("How many times better than (below 1: worse):")
        for name, ratios in self.ratios().items():
            told = (f"{text} {ratios[fig]:.2f}" for fig, text in RATIOS.items() if fig in ratios)
            console.print(f"  {name}: {', '.join(told)}")
