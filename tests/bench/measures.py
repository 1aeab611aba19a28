"""What is measured. Each function is one run of one contender, and returns its figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from contenders import Contender
from producing import BATCH_SIZE, WARM_UP_JOBS
from stage import Stage

#: The slow endpoint's latency, in seconds.
SLOW_SECONDS = 0.2
#: How long (seconds) sending to it would take if all calls that may be in flight were, all the time.
_SLOW_RUN_SECONDS = 3.0

Figures = dict[str, float]


def enqueueing(stage: Stage, contender: Contender, jobs: int) -> Figures:
    """Enqueue with no worker running: one by one, and in batches."""
    stage.clear()
    one = stage.produce(contender, "one", jobs)
    batched = 5 * jobs
    batch = stage.produce(contender, "batch", batched)
    return {
        "enqueue_one_per_second": jobs / one["seconds"],
        "enqueue_one_cpu_us": one["cpu_seconds"] / jobs * 1e6,
        "enqueue_one_p50_ms": percentile(one["call_seconds"], 50) * 1e3,
        "enqueue_one_p99_ms": percentile(one["call_seconds"], 99) * 1e3,
        "enqueue_batch_per_second": batched / batch["seconds"],
        "enqueue_batch_cpu_us": batch["cpu_seconds"] / batched * 1e6,
    }


def memory(stage: Stage, contender: Contender, jobs: int) -> Figures:
    """Let jobs wait in Redis, and see how much it grew."""
    stage.clear()
    # So that what is made once (queues, scripts) is there before.
    stage.produce(contender, "batch", BATCH_SIZE)
    before = stage.client.info("memory")["used_memory"]
    stage.produce(contender, "batch", jobs)
    after = stage.client.info("memory")["used_memory"]
    return {"redis_bytes_per_job": (after - before) / (jobs + WARM_UP_JOBS)}


def throughput(stage: Stage, contender: Contender, jobs: int) -> Figures:
    """Let a warm worker send jobs that were all enqueued before, to an endpoint that does not wait.

    Its processes are halted while that is done, so the clock starts on work that is there.
    """
    stage.clear()
    with stage.start(contender, stage.quick) as workers:
        warm = max(8, round(300 * contender.jobs_share))
        stage.produce(contender, "batch", warm)
        done = warm + WARM_UP_JOBS
        stage.wait_until(workers, lambda: contender.kept(stage.client) >= done)
        time.sleep(0.3)  # for what follows a result: acknowledgements, idling
        workers.halt()
        stage.produce(contender, "batch", jobs)
        all_done = done + jobs + WARM_UP_JOBS
        posted = stage.quick.count() + jobs + WARM_UP_JOBS

        cpu, redis_cpu, began = workers.cpu_seconds(), stage.redis_cpu_seconds(), time.monotonic()
        workers.go_on()
        stage.wait_until(workers, lambda: stage.quick.count() >= posted)
        stage.wait_until(workers, lambda: contender.kept(stage.client) >= all_done)
        seconds = time.monotonic() - began
        sent = jobs + WARM_UP_JOBS
        return {
            "jobs_per_second": sent / seconds,
            "cpu_us_per_job": (workers.cpu_seconds() - cpu) / sent * 1e6,
            "redis_cpu_us_per_job": (stage.redis_cpu_seconds() - redis_cpu) / sent * 1e6,
            "sent_twice": stage.quick.count() - posted,
        }


def lone_and_slow(stage: Stage, contender: Contender, lone_jobs: int) -> Figures:
    """Time lone jobs from the enqueueing to their arrival; then fill a slow endpoint.

    Here the sandbox is the endpoint: it refuses every request that is not as documented.
    """
    stage.clear()
    sandbox = stage.slow.sandbox
    with stage.start(contender, stage.slow) as workers:
        stage.produce(contender, "batch", contender.in_flight)
        warm = contender.in_flight + WARM_UP_JOBS
        stage.wait_until(workers, lambda: contender.kept(stage.client) >= warm)
        called_at = stage.produce(contender, "lone", lone_jobs)["called_at"]
        done = warm + WARM_UP_JOBS + lone_jobs
        stage.wait_until(workers, lambda: contender.kept(stage.client) >= done)
        arrivals = {job.metadata: job.arrived_at_monotonic[-1] for job in sandbox.jobs()}
        latencies = [
            arrivals[f"order {number}"] - called for number, called in enumerate(called_at)
        ]

        sandbox.latency_seconds = SLOW_SECONDS
        workers.halt()
        jobs = contender.in_flight * round(_SLOW_RUN_SECONDS / SLOW_SECONDS) - WARM_UP_JOBS
        stage.produce(contender, "batch", jobs)
        done += jobs + WARM_UP_JOBS
        began = time.monotonic()
        workers.go_on()
        stage.wait_until(workers, lambda: contender.kept(stage.client) >= done)
        seconds = time.monotonic() - began
        totals = sandbox.totals()
        if totals.posts != totals.accepted:
            raise RuntimeError(f"requests were not as documented: {totals}")
        return {
            "lone_median_ms": statistics.median(latencies) * 1e3,
            "lone_p99_ms": percentile(latencies, 99) * 1e3,
            "slow_share_of_ideal": _SLOW_RUN_SECONDS / seconds,
            "slow_sent_twice": totals.posts - done,
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
