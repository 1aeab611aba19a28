"""`make bench`: compare the cost of a job in this package and in other libraries.

    python tests/bench [--quick] [--json FILE] [--only NAME …]
    python tests/bench --scale [--quick] [--json FILE]

All of them do the same work: take a job from Redis, POST it, store the result. Figures of different
machines cannot be compared, but ratios can. So this project runs again before each other library,
and medians are compared. If the machine slows down, it slows down both.

`--scale` measures only this project: the cost of a job with a million queued jobs, and with a
thousand pages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from contenders import CALLS_PER_PROCESS, Contender, contenders
from machine import machine, versions
from measures import Figures, backlog, enqueueing, lone, slow, throughput, tls
from report import Report, ScaleReport
from rich.console import Console
from track import PAGES, Track

#: Option → its default, its value with --quick, and its help text.
_SIZES = {
    "rounds": (3, 1, "number of runs of each library"),
    "jobs": (20_000, 1000, "number of jobs in one run; slow libraries get fewer"),
    "lone_jobs": (50, 10, "number of jobs that are enqueued on an idle system"),
    "waves": (15, 3, "number of waves of calls to a slow endpoint"),
    "slow_in_flight": (512, 64, "calls in flight per process at 200 ms, if configurable"),
    "queued": (1_000_000, 100_000, "with --scale: maximum number of queued jobs"),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Compare this project with other libraries."
    )
    names = [each.name for each in contenders()]
    parser.add_argument("--only", nargs="+", choices=names, help="measure only these")
    parser.add_argument("--quick", action="store_true", help="measure fewer jobs, in one round")
    parser.add_argument(
        "--scale", action="store_true", help="measure with many jobs and many pages"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all figures to this file"
    )
    for name, (full, _, text) in _SIZES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=int, metavar="N", help=f"{text} ({full:,})")
    parser.add_argument(
        "--in-flight",
        type=int,
        metavar="N",
        default=CALLS_PER_PROCESS,
        help=f"calls in flight per process, if configurable ({CALLS_PER_PROCESS})",
    )
    options = parser.parse_args()
    for name, (full, quick, _) in _SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    return options


def _measure(report: Report, track: Track, options: argparse.Namespace, console: Console) -> None:
    def run(measure: Callable[..., Figures], who: Contender, how_much: int) -> None:
        if who.name in report.left_out:
            return
        with console.status(f"{measure.__name__}: {who.name}"):
            try:
                report.add(who.name, measure(track, who, how_much))
            except RuntimeError as error:
                if who.name == first.name:
                    raise
                report.leave_out(who.name, str(error))

    first, *others = report.contenders
    for who in report.contenders:
        run(lone, who, options.lone_jobs)
    names = {each.name for each in report.contenders}
    for who in contenders(options.slow_in_flight):
        if who.name in names:
            run(slow, who, options.waves)
    for _ in range(options.rounds):
        run(tls, first, options.jobs)
        for pair in [[first, other] for other in others] or [[first]]:
            for who in pair:
                run(enqueueing, who, max(8, options.jobs // 8))
                run(throughput, who, max(8, round(options.jobs * who.jobs_share)))


def _compare(track: Track, options: argparse.Namespace, console: Console) -> Report:
    wanted = [
        each
        for each in contenders(options.in_flight)
        if options.only is None or each.name in options.only
    ]
    found = {each.name: versions(each) for each in wanted}
    installed = [each for each in wanted if each.distributions[0] in found[each.name]]
    report = Report(
        machine=machine(track),
        versions=found,
        contenders=installed,
        left_out={each.name: "not installed" for each in wanted if each not in installed},
        run=(
            f"{options.jobs:,} jobs in a run, fewer for the slowest libraries; at 200 ms, "
            f"{options.slow_in_flight} calls in flight in each of two processes"
        ),
    )
    _measure(report, track, options, console)
    return report


def _scale(track: Track, options: argparse.Namespace, console: Console) -> ScaleReport:
    report = ScaleReport(machine(track))
    who = contenders(options.in_flight)[0]
    sizes = [options.queued // 100, options.queued // 10, options.queued]
    points = [(queued, PAGES) for queued in sizes] + [(sizes[1], pages) for pages in (1, 1000)]
    for _ in range(options.rounds):
        for queued, pages in points:
            with console.status(f"{queued:,} queued, pages: {pages:,}"):
                # Always the same number of jobs, and never the last jobs of the queue.
                measured = round(0.8 * sizes[0])
                report.add(queued, pages, backlog(track, who, queued, pages, measured))
    return report


def main() -> None:
    """Measure the installed libraries, and print the figures."""
    if not sys.platform.startswith("linux"):
        raise SystemExit("the bench needs Linux: it reads CPU times from /proc")
    options = _options()
    # Do not wrap lines in a file or a pipe.
    console = Console(width=None if sys.stdout.isatty() else 160)
    with Track() as track:
        report = (_scale if options.scale else _compare)(track, options, console)
    report.print(console)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
