"""The bench runs: this project's part of it, small, with every figure that the tables show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"

#: Whatever the machine, these are above nothing.
FIGURES = {
    "jobs_per_second",
    "cpu_us_per_job",
    "redis_cpu_us_per_job",
    "lone_median_ms",
    "lone_p99_ms",
    "slow_share_of_ideal",
    "enqueue_one_per_second",
    "enqueue_one_cpu_us",
    "enqueue_one_p50_ms",
    "enqueue_one_p99_ms",
    "enqueue_batch_per_second",
    "enqueue_batch_cpu_us",
    "redis_bytes_per_job",
}


def test_the_bench_measures_this_project(tmp_path: Path) -> None:
    """Given 200 jobs and no other library, it writes and prints each figure, and nothing is odd."""
    figures = tmp_path / "figures.json"

    run = subprocess.run(
        [
            *(sys.executable, str(BENCH), "--quick", "--only", "harasocial-dispatch"),
            *("--jobs", "200", "--lone-jobs", "3", "--waves", "2", "--json", str(figures)),
        ],
        env={name: text for name, text in os.environ.items() if "HARASOCIAL" not in name},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(figures.read_text())
    measured = told["medians"]["harasocial-dispatch"]
    assert measured.keys() == FIGURES | {"sent_twice"}
    assert {name for name in FIGURES if not measured[name] > 0} == set()
    assert measured["sent_twice"] == 0
    # More than all calls in flight, all the time, there cannot be.
    assert measured["slow_share_of_ideal"] <= 1
    assert told["left_out"] == {}
    assert f"{measured['jobs_per_second']:,.0f}" in run.stdout
