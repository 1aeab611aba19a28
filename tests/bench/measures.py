"""What is measured. Each function is one run of one contender, and returns its figures."""

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

#: What follows a result (acknowledging, falling idle) is over after this time (seconds).
_SETTLED_SECONDS = 0.3
#: Jobs sent before those that are measured, by a contender that takes its full share.
_WARM_UP_JOBS = 300

Figures = dict[str, float]


def enqueueing(track: Track, contender: Contender, jobs: int) -> Figures:
    """Enqueue with no worker running: one by one, then five times as many in batches."""
    track.clear()
    start = track.redis_cpu_seconds()
    one = track.produce(contender, "one", jobs)
    # By now, what is made once (queues, scripts) is in Redis.
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
    """What sending some jobs took. CPU times are of whole process trees."""

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
    """Send jobs that were all enqueued before, to an endpoint that does not wait."""
    with _started(track, contender, track.quick) as worker:
        before = worker.done
        sent = worker.send(jobs)
        # One POST for each job: more are retries.
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
    """Time lone jobs from the enqueueing to their arrival at the sandbox, which checks them."""
    with _started(track, contender, track.sandbox) as worker:
        produced = track.produce(contender, "lone", jobs)
        worker.wait_for(produced["enqueued"])
        sandbox = track.sandbox.sandbox
        # The latest, since the worker was warmed with messages of the same numbers.
        arrivals = {job.metadata: job.arrived_at_monotonic[-1] for job in sandbox.jobs()}
        totals = sandbox.totals()
    if totals.posts != totals.accepted:
        raise RuntimeError(f"not all requests were as documented: {totals}")
    called_at = enumerate(produced["called_at"])
    latencies = [arrivals[f"order {number}"] - at for number, at in called_at]
    return {
        "lone_median_ms": statistics.median(latencies) * 1e3,
        "lone_p99_ms": percentile(latencies, 99) * 1e3,
    }


def slow(track: Track, contender: Contender, waves: int) -> Figures:
    """Fill an endpoint that takes 200 ms, so many times, with all calls that may be in flight.

    The share is that of Little's law: calls in flight / their latency.
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
    """Send as in `throughput`, over HTTPS."""
    with _started(track, contender, track.tls) as worker:
        return {"tls_cpu_us_per_job": worker.send(jobs).cpu_us}


def backlog(track: Track, contender: Contender, queued: int, pages: int, jobs: int) -> Figures:
    """Enqueue `queued` jobs in batches, for so many pages, and send the first `jobs` of them."""
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
    """A contender's warm worker, and what it took to get there.

    Attributes:
        done: jobs whose result it has kept so far.
        start_seconds, start_cpu_seconds: until its first POST.
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
        """Wait until it has kept the results of so many more jobs."""
        wanted = self.done + jobs
        self._track.wait_until(
            self._workers, lambda: self._contender.kept(self._track.client) >= wanted
        )
        self.done = wanted

    def send(self, jobs: int, *, measured: int | None = None, pages: int = PAGES) -> _Sent:
        """Enqueue jobs while it is halted, let it go on, and return what the sending took.

        That is, of all of them or of the first `measured`.
        """
        track, workers = self._track, self._workers
        time.sleep(_SETTLED_SECONDS)
        workers.halt()
        memory, redis_cpu = track.used_memory(), track.redis_cpu_seconds()
        produced = track.produce(self._contender, "batch", jobs, pages)
        enqueued = produced["enqueued"]
        self.enqueue_cpu_us = produced["cpu_seconds"] / jobs * 1e6
        self.enqueue_redis_cpu_us = (track.redis_cpu_seconds() - redis_cpu) / enqueued * 1e6
        self.bytes_per_job = (track.used_memory() - memory) / enqueued

        posted = self._endpoint.count()
        cpu, redis_cpu, began = workers.cpu_seconds(), track.redis_cpu_seconds(), time.monotonic()
        workers.go_on()
        wanted = enqueued if measured is None else measured
        # Counting results is work for Redis: not before all requests came.
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
    """Start the worker with some jobs in Redis, and wait until it has sent them."""
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
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
