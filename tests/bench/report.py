"""Print the figures as tables, ratios, Markdown and JSON."""

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
    """The title and format of a figure, and whether a higher value is better."""

    title: str
    form: str
    more_is_better: bool = False


TABLES: dict[str, dict[str, Column]] = {
    "Sending, all enqueued before": {
        "jobs_per_second": Column("jobs/s", ",.0f", more_is_better=True),
        "cpu_us_per_job": Column("CPU µs/job", ",.0f"),
        "redis_cpu_us_per_job": Column("of Redis", ",.0f"),
        "tls_cpu_us_per_job": Column("over TLS", ",.0f"),
        "tls_times_plain": Column("× plain", ".2f"),
        "start_seconds": Column("start s", ".1f"),
        "start_cpu_seconds": Column("its CPU s", ".1f"),
        "sent_twice": Column("sent twice", ".0f"),
    },
    "Waiting": {
        "lone_median_ms": Column("lone job ms", ".1f"),
        "lone_p99_ms": Column("p99", ".1f"),
        "slow_jobs_per_second": Column("at 200 ms, jobs/s", ",.0f", more_is_better=True),
        "slow_share_of_ideal": Column("of ideal", ".0%", more_is_better=True),
        "slow_cpu_us_per_job": Column("CPU µs/job", ",.0f"),
    },
    "Enqueueing": {
        "enqueue_one_per_second": Column("one by one/s", ",.0f", more_is_better=True),
        "enqueue_one_cpu_us": Column("CPU µs/job", ",.0f"),
        "enqueue_one_redis_cpu_us": Column("of Redis", ",.0f"),
        "enqueue_one_p50_ms": Column("p50 ms", ".2f"),
        "enqueue_one_p99_ms": Column("p99", ".2f"),
        "enqueue_batch_per_second": Column("in 500s, jobs/s", ",.0f", more_is_better=True),
        "enqueue_batch_cpu_us": Column("CPU µs/job ", ",.1f"),
        "enqueue_batch_redis_cpu_us": Column("of Redis ", ",.1f"),
        "redis_bytes_per_job": Column("Redis bytes/job", ",.0f"),
    },
}
#: The columns of the README's table.
MARKDOWN: dict[str, Column] = {
    "jobs_per_second": Column("jobs/s", "{:,.0f}", more_is_better=True),
    "cpu_us_per_job": Column("CPU per job", "{:,.0f} µs"),
    "redis_cpu_us_per_job": Column("of Redis", "{:,.0f} µs"),
    "enqueue_one_cpu_us": Column("to enqueue one", "{:,.0f} µs"),
    "enqueue_batch_cpu_us": Column("in 500s", "{:,.0f} µs"),
    "redis_bytes_per_job": Column("Redis memory per job", "{:,.0f} bytes"),
    "lone_median_ms": Column("lone job until sent", "{:.1f} ms"),
    "slow_jobs_per_second": Column("jobs/s at 200 ms", "{:,.0f}", more_is_better=True),
}
#: The columns for --scale.
SCALE: dict[str, Column] = {
    "jobs_per_second": Column("jobs/s", ",.0f"),
    "cpu_us_per_job": Column("CPU µs/job", ",.0f"),
    "redis_cpu_us_per_job": Column("of Redis", ",.0f"),
    "enqueue_batch_cpu_us": Column("to enqueue, CPU µs/job", ",.1f"),
    "enqueue_batch_redis_cpu_us": Column("of Redis ", ",.1f"),
    "redis_bytes_per_job": Column("Redis bytes/job", ",.0f"),
}
#: The figures in the ratios, and their names.
RATIOS = {
    "jobs_per_second": "jobs/s",
    "cpu_us_per_job": "CPU per job",
    "enqueue_one_cpu_us": "CPU to enqueue one",
    "enqueue_batch_cpu_us": "in 500s",
    "lone_median_ms": "lone job's latency",
    "slow_jobs_per_second": "jobs/s at 200 ms",
    "redis_bytes_per_job": "Redis memory",
}
_COLUMNS = {name: column for table in TABLES.values() for name, column in table.items()}


@dataclass(slots=True)
class Report:
    """All samples: the figures of each run of each library."""

    machine: Mapping[str, str]
    versions: dict[str, dict[str, str]]
    contenders: list[Contender]
    left_out: dict[str, str]
    #: The options of the run, as text.
    run: str
    #: Library → figure → one value per run. The n-th runs of two libraries are at different times,
    #: so medians are compared.
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, name: str, figures: Figures) -> None:
        """Add the figures of a run."""
        of_contender = self.samples.setdefault(name, {})
        for figure, value in figures.items():
            of_contender.setdefault(figure, []).append(value)

    def leave_out(self, name: str, reason: str) -> None:
        """Remove the figures of a library that failed."""
        self.left_out[name] = reason
        self.samples.pop(name, None)

    def medians(self) -> dict[str, Figures]:
        """Return the medians of each library's figures."""
        found = {
            name: {figure: statistics.median(values) for figure, values in figures.items()}
            for name, figures in self.samples.items()
        }
        for figures in found.values():
            if "tls_cpu_us_per_job" in figures:
                figures["tls_times_plain"] = (
                    figures["tls_cpu_us_per_job"] / figures["cpu_us_per_job"]
                )
        return found

    def ratios(self) -> dict[str, Figures]:
        """Return the ratios of the first library to each other library, by figure."""
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
            "run": self.run,
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
            console.print(f"[bold]{name}[/] is not included: {reason}")
        for title, columns in TABLES.items():
            _print_table(console, title, columns, self.medians())
        self._print_ratios(console)
        console.print("\nFor the README:\n")
        console.print(self.markdown(), markup=False, highlight=False, soft_wrap=True)

    def _print_ratios(self, console: Console) -> None:
        if len(self.samples) < 2:
            return
        console.print("How many times better than (below 1: worse):")
        for name, ratios in self.ratios().items():
            shown = (f"{text} {ratios[fig]:.2f}" for fig, text in RATIOS.items() if fig in ratios)
            console.print(f"  {name}: {', '.join(shown)}")

    def markdown(self) -> str:
        """Return the README's table, sorted by throughput, with the best values in bold."""
        first, *others = self.medians().items()
        others.sort(key=lambda named: -named[1]["jobs_per_second"])
        best = {
            figure: (max if column.more_is_better else min)(
                figures[figure] for _, figures in (first, *others) if figure in figures
            )
            for figure, column in MARKDOWN.items()
        }
        lines = ["| | " + " | ".join(column.title for column in MARKDOWN.values()) + " |"]
        lines.append("|---|" + "--:|" * len(MARKDOWN))
        for name, figures in (first, *others):
            cells = [f"**{name}**" if name == first[0] else f"{name} {self._version(name)}"]
            for figure, column in MARKDOWN.items():
                text = column.form.format(figures[figure]) if figure in figures else ""
                is_best = bool(text) and bool(others) and figures[figure] == best[figure]
                cells.append(f"**{text}**" if is_best else text)
            lines.append("| " + " | ".join(cells) + " |")
        shown = ", ".join(
            f"{name} {value}" for name, value in self.machine.items() if name in _IN_README
        )
        return "\n".join([*lines, "", f"{shown}; {self.run}"])

    def _version(self, name: str) -> str:
        """Return the minor version of a library."""
        return ".".join(next(iter(self.versions[name].values())).split(".")[:2])


#: The description of the machine for the README.
_IN_README = ("Python", "cores", "Valkey", "endpoint")


@dataclass(slots=True)
class ScaleReport:
    """The cost of a job by the number of queued jobs and of pages."""

    machine: Mapping[str, str]
    samples: dict[tuple[int, int], list[Figures]] = field(default_factory=dict)

    def add(self, queued: int, pages: int, figures: Figures) -> None:
        """Add the figures of a run."""
        self.samples.setdefault((queued, pages), []).append(figures)

    def medians(self) -> dict[str, Figures]:
        """Return the median figures by size."""
        return {
            f"{queued:,} queued, pages: {pages:,}": {
                figure: statistics.median(run[figure] for run in runs) for figure in runs[0]
            }
            for (queued, pages), runs in self.samples.items()
        }

    def as_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object."""
        return {"machine": dict(self.machine), "medians": self.medians()}

    def print(self, console: Console) -> None:
        """Print one line for each size."""
        console.print(" · ".join(f"{name} {value}" for name, value in self.machine.items()))
        _print_table(console, "By jobs queued and pages", SCALE, self.medians())


def _print_table(
    console: Console, title: str, columns: Mapping[str, Column], rows: Mapping[str, Figures]
) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns.values():
        table.add_column(column.title, justify="right")
    for name, figures in rows.items():
        shown = [
            format(figures[figure], column.form) if figure in figures else ""
            for figure, column in columns.items()
        ]
        table.add_row(name, *shown)
    console.print(table)
