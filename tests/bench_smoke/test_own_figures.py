"""A small run of the bench for this package measures every figure of the tables.

The CPU time includes all processes that a worker starts.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import run_program

BENCH = Path(__file__).parents[1] / "bench"

#: Figures that are above 0 on every machine.
FIGURES = {
    "jobs_per_second",
    "cpu_us_per_job",
    "redis_cpu_us_per_job",
    "lone_median_ms",
    "lone_p99_ms",
    "slow_jobs_per_second",
    "slow_share_of_ideal",
    "slow_cpu_us_per_job",
    "tls_cpu_us_per_job",
    "tls_times_plain",
    "start_seconds",
    "start_cpu_seconds",
    "enqueue_one_per_second",
    "enqueue_one_cpu_us",
    "enqueue_one_redis_cpu_us",
    "enqueue_one_p50_ms",
    "enqueue_one_p99_ms",
    "enqueue_batch_per_second",
    "enqueue_batch_cpu_us",
    "enqueue_batch_redis_cpu_us",
    "redis_bytes_per_job",
}


def test_the_bench_measures_this_package(tmp_path: Path) -> None:
    """A run with 200 jobs and no other library writes and prints all figures."""
    figures = tmp_path / "figures.json"

    run = run_program(
        *(sys.executable, BENCH, "--quick", "--only", "harasocial-dispatch"),
        *("--jobs", "200", "--lone-jobs", "1", "--waves", "1", "--json", figures),
        env={name: text for name, text in os.environ.items() if "HARASOCIAL" not in name},
    )

    assert run.returncode == 0, run.stderr
    told = json.loads(figures.read_text())
    measured = told["medians"]["harasocial-dispatch"]
    assert measured.keys() == FIGURES | {"sent_twice"}
    assert {name for name in FIGURES if not measured[name] > 0} == set()
    assert measured["sent_twice"] == 0
    # The share of used calls cannot be more than all calls in flight.
    assert measured["slow_share_of_ideal"] <= 1
    assert told["left_out"] == {}
    # The package is in both tables. Other figures may have the same digits.
    per_second = f"{measured['jobs_per_second']:,.0f}"
    assert re.search(rf"│ harasocial-dispatch +│ +{per_second} │", run.stdout)
    assert f"\n| **harasocial-dispatch** | {per_second} | " in run.stdout


#: The child uses CPU time in its own session, on a thread. Then it prints `done`.
PARENT = """\
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], start_new_session=True)
"""
CHILD = """\
import threading, time
def burn():
    while time.thread_time() < 0.5: pass
thread = threading.Thread(target=burn)
thread.start()
thread.join()
print("done", flush=True)
time.sleep(60)
"""


def test_the_cpu_time_of_a_workers_descendants_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time includes processes in other sessions, and threads."""
    monkeypatch.syspath_prepend(str(BENCH))
    workers = importlib.import_module("workers")
    contender = replace(
        importlib.import_module("contenders").contenders()[0], worker=("-c", PARENT, CHILD)
    )
    with workers.Workers(contender, dict(os.environ), tmp_path / "log") as started:
        deadline = time.monotonic() + 120
        while "done" not in started.log():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert started.cpu_seconds() >= 0.5
