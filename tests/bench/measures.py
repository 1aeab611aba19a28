"""The measures. Each function makes one run of one library, and returns its figures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from contenders import Contender
from endpoints import Endpoint
from track import PAGES, SLOW_SECONDS, Track
from workers import Workers

#: Time for the work after a result, such as acknowledgment.
_SETTLED_SECONDS = 0.3
#: Number of jobs that are sent before the measured jobs, by a library with its full share.
_WARM_UP_JOBS = 300

Figures = dict[str, float]


def enqueueing(track: Track, contender: Contender, jobs: int) -> Figures:
    """Enqueue without a worker: jobs one by one, then five times as many in batches."""
    track.clear()
    start = track.redis_cpu_seconds()
    one = track.produce(contender, "one", jobs)
    # Queues and scripts, which are created once, are already in Redis.
    before, between = track.used_memory(), track.redis_cpu_seconds()
    batch = track.produce(contender, "batch", 5 * jobs)
    end = track.redis_cpu_seconds()
    return {
        "enqueue_one_per_second": jobs / one["seconds"],
        "enqueue_one_cpu_us": one["cpu_seconds"] / jobs * 1e6,
        "enqueue_one_redis_cpu_us": (between - start) / one["enqueued"] * 1e6,
        "enqueue_one_p50_ms": percentile(one["call_seconds"], 50) * 1e3,
        "enqueue_one_p99_ms": percentile(one["call_seconds"], 99) * 1e3,
        "enqueue_batch_per_second": 5 * jobs / batch["seconds"],
        "enqueue_batch_cpu_us": batch["cpu_seconds"] / (5 * jobs) * 1e6,
        "enqueue_batch_redis_cpu_us": (end - between) / batch["enqueued"] * 1e6,
        "redis_bytes_per_job": (track.used_memory() - before) / batch["enqueued"],
    }


@dataclass(slots=True)
class _Sent:
    """The time for sending some jobs. CPU times include all processes of a tree."""

    jobs: int
    seconds: float
    cpu_seconds: float
    redis_cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds

    @property
    def cpu_us(self) -> float:
        return self.cpu_seconds / self.jobs * 1e6

    @property
    def redis_cpu_us(self) -> float:
        return self.redis_cpu_seconds / self.jobs * 1e6


def throughput(track: Track, contender: Contender, jobs: int) -> Figures:
    """Send jobs that are already enqueued, to an endpoint without a delay."""
    with _started(track, contender, track.quick) as worker:
        before = worker.done
        sent = worker.send(jobs)
        # More POSTs than jobs are retries.
        twice = track.quick.count() - before - sent.jobs
    return {
        "jobs_per_second": sent.per_second,
        "cpu_us_per_job": sent.cpu_us,
        "redis_cpu_us_per_job": sent.redis_cpu_us,
        "start_seconds": worker.start_seconds,
        "start_cpu_seconds": worker.start_cpu_seconds,
        "sent_twice": twice,
    }


def lone(track: Track, contender: Contender, jobs: int) -> Figures:
    """Measure the latency of single jobs, from enqueue to arrival at the sandbox."""
    with _started(track, contender, track.sandbox) as worker:
        produced = track.produce(contender, "lone", jobs)
        worker.wait_for(produced["enqueued"])
        sandbox = track.sandbox.sandbox
        # The last arrival counts: the warm-up used messages with the same numbers.
        arrivals = {job.metadata: job.arrived_at_monotonic[-1] for job in sandbox.jobs()}
        totals = sandbox.totals()
    if totals.posts != totals.accepted:
        raise RuntimeError(f"not all requests were valid: {totals}")
    called_at = enumerate(produced["called_at"])
    latencies = [arrivals[f"order {number}"] - at for number, at in called_at]
    return {
        "lone_median_ms": statistics.median(latencies) * 1e3,
        "lone_p99_ms": percentile(latencies, 99) * 1e3,
    }


def slow(track: Track, contender: Contender, waves: int) -> Figures:
    """Send `waves` times the maximum number of calls in flight to an endpoint with a 200 ms delay.

    The ideal rate follows Little's law: calls in flight / latency.
    """
    with _started(track, contender, track.slow, warm_up=contender.in_flight) as worker:
        sent = worker.send(contender.in_flight * waves)
    ideal_seconds = math.ceil(sent.jobs / contender.in_flight) * SLOW_SECONDS
    return {
        "slow_jobs_per_second": sent.per_second,
        "slow_share_of_ideal": ideal_seconds / sent.seconds,
        "slow_cpu_us_per_job": sent.cpu_us,
    }


def tls(track: Track, contender: Contender, jobs: int) -> Figures:
    """Send like `throughput`, over HTTPS."""
    with _started(track, contender, track.tls) as worker:
        return {"tls_cpu_us_per_job": worker.send(jobs).cpu_us}


def backlog(track: Track, contender: Contender, queued: int, pages: int, jobs: int) -> Figures:
    """Enqueue `queued` jobs in batches for `pages` pages, and send the first `jobs` of them."""
    with _started(track, contender, track.quick, pages=pages) as worker:
        sent = worker.send(queued, measured=jobs, pages=pages)
    return {
        "jobs_per_second": sent.per_second,
        "cpu_us_per_job": sent.cpu_us,
        "redis_cpu_us_per_job": sent.redis_cpu_us,
        "enqueue_batch_cpu_us": worker.enqueue_cpu_us,
        "enqueue_batch_redis_cpu_us": worker.enqueue_redis_cpu_us,
        "redis_bytes_per_job": worker.bytes_per_job,
    }


class _Worker:
    """A warm worker of a library, and the time of its start.

    Attributes:
        done: the number of results that it has stored.
        start_seconds, start_cpu_seconds: the time until its first POST.
    """

    def __init__(
        self, track: Track, contender: Contender, endpoint: Endpoint, workers: Workers
    ) -> None:
        self._track, self._contender = track, contender
        self._endpoint, self._workers = endpoint, workers
        self.done = 0
        self.start_seconds = self.start_cpu_seconds = 0.0
        self.enqueue_cpu_us = self.enqueue_redis_cpu_us = self.bytes_per_job = 0.0

    def wait_for(self, jobs: int) -> None:
        """Wait until it has stored the results of this number of jobs."""
        wanted = self.done + jobs
        self._track.wait_until(
            self._workers, lambda: self._contender.kept(self._track.client) >= wanted
        )
        self.done = wanted

    def send(self, jobs: int, *, measured: int | None = None, pages: int = PAGES) -> _Sent:
        """Enqueue jobs while the worker is suspended, resume it, and measure the sending.

        The measure includes all jobs, or the first `measured` ones.
        """
        track, workers = self._track, self._workers
        time.sleep(_SETTLED_SECONDS)
        workers.suspend()
        memory, redis_cpu = track.used_memory(), track.redis_cpu_seconds()
        produced = track.produce(self._contender, "batch", jobs, pages)
        enqueued = produced["enqueued"]
        self.enqueue_cpu_us = produced["cpu_seconds"] / jobs * 1e6
        self.enqueue_redis_cpu_us = (track.redis_cpu_seconds() - redis_cpu) / enqueued * 1e6
        self.bytes_per_job = (track.used_memory() - memory) / enqueued

        posted = self._endpoint.count()
        cpu, redis_cpu, began = workers.cpu_seconds(), track.redis_cpu_seconds(), time.monotonic()
        workers.resume()
        wanted = enqueued if measured is None else measured
        # Count results only after all requests arrived, because counting is work for Redis.
        track.wait_until(workers, lambda: self._endpoint.count() >= posted + wanted)
        if measured is None:
            self.wait_for(enqueued)
        return _Sent(
            jobs=wanted if measured is None else self._endpoint.count() - posted,
            seconds=time.monotonic() - began,
            cpu_seconds=workers.cpu_seconds() - cpu,
            redis_cpu_seconds=track.redis_cpu_seconds() - redis_cpu,
        )


@contextmanager
def _started(
    track: Track,
    contender: Contender,
    endpoint: Endpoint,
    *,
    warm_up: int | None = None,
    pages: int = PAGES,
) -> Iterator[_Worker]:
    """Start the worker with some jobs in Redis. Wait until it has sent them."""
    track.clear()
    jobs = max(8, round(_WARM_UP_JOBS * contender.jobs_share)) if warm_up is None else warm_up
    enqueued = track.produce(contender, "batch", jobs, pages)["enqueued"]
    with track.start(contender, endpoint) as workers:
        worker = _Worker(track, contender, endpoint, workers)
        track.wait_until(workers, lambda: endpoint.count() >= 1)
        worker.start_seconds = time.monotonic() - workers.started_at
        worker.start_cpu_seconds = workers.cpu_seconds()
        worker.wait_for(enqueued)
        yield worker


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of the values (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
