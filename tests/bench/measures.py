"""What is measured. Each function is one run of one contender, and returns its figures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from contenders import Contender
from endpoints import Endpoint
from track import Track
from workers import Workers

#: The slow endpoint's latency, in seconds.
SLOW_SECONDS = 0.2
#: What follows a result (acknowledging, falling idle) is over after this time (seconds).
_SETTLED_SECONDS = 0.3

Figures = dict[str, float]


def enqueueing(track: Track, contender: Contender, jobs: int) -> Figures:
    """Enqueue with no worker running: one by one, then five times as many in batches."""
    track.clear()
    one = track.produce(contender, "one", jobs)
    # By now, what is made once (queues, scripts) is in Redis.
    before = track.client.info("memory")["used_memory"]
    batch = track.produce(contender, "batch", 5 * jobs)
    grown = track.client.info("memory")["used_memory"] - before
    return {
        "enqueue_one_per_second": jobs / one["seconds"],
        "enqueue_one_cpu_us": one["cpu_seconds"] / jobs * 1e6,
        "enqueue_one_p50_ms": percentile(one["call_seconds"], 50) * 1e3,
        "enqueue_one_p99_ms": percentile(one["call_seconds"], 99) * 1e3,
        "enqueue_batch_per_second": 5 * jobs / batch["seconds"],
        "enqueue_batch_cpu_us": batch["cpu_seconds"] / (5 * jobs) * 1e6,
        "redis_bytes_per_job": grown / batch["enqueued"],
    }


def throughput(track: Track, contender: Contender, jobs: int) -> Figures:
    """Send jobs that were all enqueued before, to an endpoint that does not wait.

    The worker is warm, and halted while they are enqueued: the clock starts on work that is there.
    """
    warm_up = max(8, round(300 * contender.jobs_share))
    with _warm_worker(track, contender, track.quick, warm_up) as (workers, done):
        time.sleep(_SETTLED_SECONDS)
        workers.halt()
        enqueued = track.produce(contender, "batch", jobs)["enqueued"]
        posted = track.quick.count() + enqueued
        cpu, redis_cpu, began = workers.cpu_seconds(), track.redis_cpu_seconds(), time.monotonic()
        workers.go_on()
        track.wait_until(workers, lambda: track.quick.count() >= posted)
        track.wait_until(workers, lambda: contender.kept(track.client) >= done + enqueued)
        seconds = time.monotonic() - began
        return {
            "jobs_per_second": enqueued / seconds,
            "cpu_us_per_job": (workers.cpu_seconds() - cpu) / enqueued * 1e6,
            "redis_cpu_us_per_job": (track.redis_cpu_seconds() - redis_cpu) / enqueued * 1e6,
            "sent_twice": track.quick.count() - posted,
        }


def latency(track: Track, contender: Contender, jobs: int, waves: int) -> Figures:
    """Time lone jobs from the enqueueing to their arrival; then fill an endpoint that takes 200 ms.

    It is filled so many times (`waves`) with all calls that may be in flight. Here the sandbox is
    the endpoint, which checks every request.
    """
    sandbox = track.slow.sandbox
    with _warm_worker(track, contender, track.slow, contender.in_flight) as (workers, warm):
        lone = track.produce(contender, "lone", jobs)
        done = warm + lone["enqueued"]
        track.wait_until(workers, lambda: contender.kept(track.client) >= done)
        # The latest, since the worker was warmed with messages of the same numbers.
        arrivals = {job.metadata: job.arrived_at_monotonic[-1] for job in sandbox.jobs()}

        sandbox.latency_seconds = SLOW_SECONDS
        workers.halt()
        enqueued = track.produce(contender, "batch", contender.in_flight * waves)["enqueued"]
        began = time.monotonic()
        workers.go_on()
        track.wait_until(workers, lambda: contender.kept(track.client) >= done + enqueued)
        seconds = time.monotonic() - began
        totals = sandbox.totals()
    if totals.posts != totals.accepted:
        raise RuntimeError(f"not all requests were as documented: {totals}")
    latencies = [arrivals[f"order {number}"] - at for number, at in enumerate(lone["called_at"])]
    ideal_seconds = math.ceil(enqueued / contender.in_flight) * SLOW_SECONDS
    return {
        "lone_median_ms": statistics.median(latencies) * 1e3,
        "lone_p99_ms": percentile(latencies, 99) * 1e3,
        "slow_share_of_ideal": ideal_seconds / seconds,
    }


@contextmanager
def _warm_worker(
    track: Track, contender: Contender, endpoint: Endpoint, jobs: int
) -> Iterator[tuple[Workers, int]]:
    """Start the worker on an empty Redis, and let it send some jobs; give their number too."""
    track.clear()
    with track.start(contender, endpoint) as workers:
        done = track.produce(contender, "batch", jobs)["enqueued"]
        track.wait_until(workers, lambda: contender.kept(track.client) >= done)
        yield workers, done


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
