"""`make bench`: what a job costs here, and with other libraries, measured in one run.

    python tests/bench [--quick] [--json FILE] [--only NAME …]

The same work for all: take a job from Redis, POST it, keep the result. Figures of two machines say
little about each other; the ratios travel better. For those, this project runs before each of the
others anew, and medians are compared, so that a machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from contenders import CALLS_PER_PROCESS, PEERS, Contender, ours
from machine import machine, versions
from measures import Figures, enqueueing, latency, throughput
from report import Report
from rich.console import Console
from track import Track


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measure this project and others on the same work."
    )
    names = [ours().name, *(peer.name for peer in PEERS)]
    parser.add_argument("--only", nargs="+", choices=names, help="these alone")
    parser.add_argument("--quick", action="store_true", help="fewer jobs, one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    parser.add_argument("--rounds", type=int, help="runs of each peer (3)")
    parser.add_argument("--jobs", type=int, help="jobs in one run (4000)")
    parser.add_argument("--lone-jobs", type=int, help="jobs enqueued on an idle system (50)")
    parser.add_argument("--waves", type=int, help="times that a slow endpoint is filled (15)")
    parser.add_argument(
        "--in-flight", type=int, default=CALLS_PER_PROCESS, help="this project's IN_FLIGHT"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.jobs = options.jobs or (1000 if options.quick else 4000)
    options.lone_jobs = options.lone_jobs or (10 if options.quick else 50)
    options.waves = options.waves or (5 if options.quick else 15)
    return options


def _measure(report: Report, track: Track, options: argparse.Namespace, console: Console) -> None:
    def run(measure: Callable[..., Figures], who: Contender, *how_much: int) -> None:
        if who.name in report.left_out:
            return
        with console.status(f"{measure.__name__}: {who.name}"):
            try:
                report.add(who.name, measure(track, who, *how_much))
            except RuntimeError as error:
                if who is first:
                    raise
                report.leave_out(who.name, str(error))

    first, *others = report.contenders
    for who in report.contenders:
        run(latency, who, options.lone_jobs, options.waves)
    for _ in range(options.rounds):
        for pair in [[first, other] for other in others] or [[first]]:
            for who in pair:
                run(enqueueing, who, options.jobs // 4)
                run(throughput, who, max(8, round(options.jobs * who.jobs_share)))


def main() -> None:
    """Measure what is installed, and print it."""
    if not sys.platform.startswith("linux"):
        raise SystemExit("the bench reads CPU times from /proc: it needs Linux")
    options = _options()
    # In a file or a pipe, lines are as long as they need to be.
    console = Console(width=None if sys.stdout.isatty() else 160)
    wanted = [
        each
        for each in (ours(options.in_flight), *PEERS)
        if options.only is None or each.name in options.only
    ]
    found = {each.name: versions(each) for each in wanted}
    installed = [each for each in wanted if each.distributions[0] in found[each.name]]
    with Track() as track:
        report = Report(
            machine=machine(track),
            versions=found,
            contenders=installed,
            left_out={each.name: "not installed" for each in wanted if each not in installed},
        )
        _measure(report, track, options, console)
    report.print(console)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
