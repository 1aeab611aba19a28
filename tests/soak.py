"""A soak test: minutes of mixed traffic with faults, to find leaks.

    make soak                 ten minutes
    make soak SECONDS=60      one minute

Prints a line every ten seconds. Fails if a job does not end, if jobs and POSTs are not consistent,
or if the memory, file descriptors or threads of the workers, or the memory of Redis, keep growing.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import redis
from harasocial_dispatch.producer import Producer, QueueUnavailable
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import ENDED, WorkerProcess, body, environment, eventually, kill

JOBS_A_SECOND = 150
FAULT_EVERY_SECONDS = 15
MEASURE_EVERY_SECONDS = 10
PAGES = [str(1000 + i) for i in range(30)]
WAITING = [state for state in State if state not in ENDED]

#: Payload id → percentage of the jobs.
TRAFFIC = [
    ("__hrf_f_soak", 80),
    ("sandbox:flaky:1", 5),
    ("sandbox:code:10/2018278", 4),
    ("sandbox:throttle_first:1:0.2", 3),
    ("sandbox:slow:0.3", 3),
    ("sandbox:flaky_drop:1", 2),
    ("sandbox:garbage", 1),
    ("sandbox:status:503", 1),
    ("sandbox:huge", 1),
]


@dataclass(frozen=True)
class Measurement:
    """A measurement."""

    memory_mb: float
    files: int
    threads: int
    redis_mb: float


class Soak:
    """The servers, the traffic and the faults."""

    def __init__(self, stack: ExitStack, chance: random.Random) -> None:
        self.chance = chance
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.valkey = stack.enter_context(EmbeddedValkey(appendonly="yes", appendfsync="always"))
        self.sandbox = stack.enter_context(Sandbox(keep_requests=10))
        self.settings = Settings(redis_url=self.valkey.url, page_rate=0.0)
        env = environment(
            self.settings,
            self.sandbox.url,
            LEASE_SECONDS=5,
            CALL_DEADLINE_SECONDS=3,
            MAX_ATTEMPTS=6,
            RETRY_BASE_SECONDS=0.2,
            RETRY_MAX_SECONDS=2,
            SENT_TTL_SECONDS=20,
            FAILED_TTL_SECONDS=30,
        )
        self.worker = WorkerProcess(env, folder, "--concurrency", "2", new_interpreter=True).start()
        stack.callback(self.worker.kill)
        self.producer = Producer(self.settings)
        self.enqueued = 0
        self.refused = 0
        self.next_messages_at = 0.0
        self.faults: Counter[str] = Counter()

    def enqueue(self, count: int) -> None:
        payloads, weights = zip(*TRAFFIC, strict=True)
        rows = [
            body(
                f"{self.chance.choices(payloads, weights)[0]}#{self.enqueued + i}"
                if self.chance.random() < 0.9
                else "__hrf_f_soak",
                page_id=self.chance.choice(PAGES),
                metadata=f"job {self.enqueued + i}",
            )
            for i in range(count)
        ]
        try:
            self.enqueued += len(self.producer.enqueue_many(rows).accepted)
        except QueueUnavailable:
            self.refused += count

    def cause_fault(self) -> None:
        fault = self.chance.choice([self.kill_child, self.cut, self.restart_redis, self.storm])
        fault()
        self.faults[fault.__name__] += 1

    def kill_child(self) -> None:
        kill(self.chance.choice(self.worker.children()))

    def cut(self) -> None:
        with suppress(redis.RedisError):
            client = redis.Redis.from_url(self.valkey.url)
            client.client_kill_filter(_type="normal", skipme=True)

    def restart_redis(self) -> None:
        self.valkey.kill()
        time.sleep(1)
        self.valkey.restart()

    def storm(self) -> None:
        self.sandbox.fail_with(503)
        time.sleep(1)
        self.sandbox.fail_with(None)

    def finished(self) -> bool:
        """Return whether every job has ended. If not, enqueue a message for each page.

        A page whose messages all fail is paused, and tries one of them after each pause. The
        accepted messages of a page in use resume it earlier.
        """
        states = self.producer.count_states()
        if not any(states[state] for state in WAITING):
            return True
        if time.monotonic() > self.next_messages_at:
            self.next_messages_at = time.monotonic() + 1
            rows = [body("__hrf_f_soak", page_id=page_id) for page_id in PAGES]
            self.enqueued += len(self.producer.enqueue_many(rows).accepted)
        return False

    def measure(self) -> Measurement:
        pids = [self.worker.pid, *self.worker.children()]
        memory, files, threads = 0.0, 0, 0
        for pid in pids:
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                memory += int(fields.get("VmRSS", "0 kB").split()[0]) / 1024
                threads += int(fields["Threads"])
                files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        used = redis.Redis.from_url(self.valkey.url).info("memory")["used_memory"]
        return Measurement(memory, files, threads, used / 2**20)


def grows(values: list[float], by: float) -> bool:
    """Return whether the last quarter is higher than the second one by more than the share `by`."""
    quarter = max(1, len(values) // 4)
    early = statistics.median(values[quarter : 2 * quarter])
    late = statistics.median(values[-quarter:])
    return late > early * (1 + by)


def main(seconds: float) -> int:
    """Run for `seconds`. Return the exit status."""
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}, {seconds:.0f} s")
    with ExitStack() as stack:
        soak = Soak(stack, random.Random(seed))
        began = time.monotonic()
        next_fault, next_measurement = began + FAULT_EVERY_SECONDS, began + MEASURE_EVERY_SECONDS
        measurements: list[Measurement] = []
        while (now := time.monotonic()) < began + seconds:
            soak.enqueue(JOBS_A_SECOND // 5)
            if now >= next_fault:
                soak.cause_fault()
                next_fault = now + FAULT_EVERY_SECONDS
            if now >= next_measurement:
                measurements.append(soak.measure())
                next_measurement = now + MEASURE_EVERY_SECONDS
                last = measurements[-1]
                print(
                    f"{now - began:5.0f} s  {soak.enqueued} enqueued  workers {last.memory_mb:.0f} "
                    f"MB {last.files} files {last.threads} threads  Redis {last.redis_mb:.1f} MB"
                )
            time.sleep(max(0.0, now + 0.2 - time.monotonic()))
        eventually(soak.finished, seconds=120, what="the end of every job")
        doubles = sum(job.accepted > 1 for job in soak.sandbox.jobs())
        print(
            f"{soak.enqueued} jobs, {soak.refused} refused at enqueueing, faults "
            f"{dict(soak.faults)}; accepted twice after an unknown outcome: {doubles}"
        )
        growing = [
            name
            for name, by in (
                ("memory_mb", 0.15),
                ("files", 0.2),
                ("threads", 0.2),
                ("redis_mb", 0.3),
            )
            if grows([getattr(each, name) for each in measurements], by)
        ]
        print(f"growing: {', '.join(growing) or 'nothing'}")
        return 1 if growing else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
