"""The measured libraries: this project, and libraries that can do the same work.

Each has its own module here, which sends a message like a user of the library. Each has its own
interpreter, because they need different versions of redis-py. This file does not import them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import redis

#: Common configuration of all measures: 64 calls in flight if possible.
PROCESSES = 2
CALLS_PER_PROCESS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A library, and how to run it.

    Attributes:
        module: the module in this folder, with `enqueue`, `enqueue_batch` and the task.
        distributions: the distributions whose versions are reported. The first is the library.
        worker: the worker's command, without the interpreter.
        in_flight: maximum concurrent calls of its processes.
        scales: whether the number of concurrent calls is configurable.
        kept: counts the results that it has stored in Redis.
        environment: the folder of its interpreter; "" for that of the bench.
        variables: additional environment variables, besides those of call.py.
        jobs_share: its share of a round's jobs, because a slow library would take minutes.
    """

    name: str
    module: str
    distributions: tuple[str, ...]
    how: str
    worker: tuple[str, ...]
    in_flight: int
    scales: bool = False
    kept: Callable[[redis.Redis], int]
    environment: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    jobs_share: float = 1.0


def _keys(pattern: str) -> Callable[[redis.Redis], int]:
    def count(client: redis.Redis) -> int:
        return sum(1 for _ in client.scan_iter(pattern, count=2000))

    return count


def _saq_kept(client: redis.Redis) -> int:
    # The key of a job has the result when the job is no longer in the incomplete set.
    return _keys("saq:job:default:*")(client) - int(client.zcard("saq:default:incomplete"))


def _list_length(key: str) -> Callable[[redis.Redis], int]:
    def count(client: redis.Redis) -> int:
        return int(client.llen(key))

    return count


def contenders(calls_per_process: int = CALLS_PER_PROCESS) -> tuple[Contender, ...]:
    """Return this project, then the others, with this number of calls if configurable."""
    return (_ours(calls_per_process), *_peers(calls_per_process))


def _ours(calls: int) -> Contender:
    return Contender(
        name="harasocial-dispatch",
        module="ours",
        distributions=("harasocial-dispatch", "celery", "redis", "httptools"),
        how=f"{PROCESSES} processes × {calls} calls",
        worker=(
            *("-m", "celery", "-A", "harasocial_dispatch.worker", "worker"),
            *("-c", str(PROCESSES), "-l", "WARNING", "--without-gossip", "--without-mingle"),
        ),
        in_flight=PROCESSES * calls,
        scales=True,
        kept=_list_length("{bench}:sent"),
        variables={
            "HARASOCIAL_IN_FLIGHT": str(calls),
            "HARASOCIAL_NAMESPACE": "bench",
            "HARASOCIAL_PAGE_RATE": "0",  # the other libraries have no rate limit per page
        },
    )


def _peers(calls: int) -> tuple[Contender, ...]:
    """Return the other libraries, configured for many short jobs as their documentation advises."""
    variables = {"BENCH_CALLS_PER_PROCESS": str(calls)}
    return (
        Contender(
            name="celery",
            module="with_celery",
            distributions=("celery", "kombu", "redis", "requests"),
            how="prefork 2, acks_late, Redis results",
            worker=(
                *(
                    "-m",
                    "celery",
                    "-A",
                    "contenders.with_celery",
                    "worker",
                    "-c",
                    "2",
                    "-l",
                    "WARNING",
                ),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ),
            in_flight=2,
            kept=_keys("celery-task-meta-*"),
            jobs_share=0.2,
        ),
        Contender(
            name="dramatiq",
            module="with_dramatiq",
            distributions=("dramatiq", "redis", "requests"),
            how="2 processes × 8 threads, results",
            worker=(
                *("-m", "dramatiq", "contenders.with_dramatiq"),
                *("--processes", "2", "--threads", "8"),
            ),
            in_flight=16,
            kept=_keys("dramatiq-results:*"),
            environment="dramatiq",
        ),
        Contender(
            name="rq",
            module="with_rq",
            distributions=("rq", "redis", "requests"),
            how="2 workers, a fork for each job",
            worker=("-m", "rq.cli", "worker-pool", "-n", "2", "-q", "-c", "contenders.with_rq"),
            in_flight=2,
            kept=_keys("rq:results:*"),
            environment="rq",
            jobs_share=0.01,
        ),
        Contender(
            name="rq SimpleWorker",
            module="with_rq",
            distributions=("rq", "redis", "requests"),
            how="2 workers, no forks",
            worker=(
                *("-m", "rq.cli", "worker-pool", "-n", "2", "-q", "-c", "contenders.with_rq"),
                *("-w", "rq.worker.SimpleWorker"),
            ),
            in_flight=2,
            kept=_keys("rq:results:*"),
            environment="rq",
            jobs_share=0.1,
        ),
        Contender(
            name="arq",
            module="with_arq",
            distributions=("arq", "redis", "aiohttp", "uvloop"),
            how=f"1 process × {PROCESSES * calls} tasks",
            worker=("-m", "arq", "contenders.with_arq.WorkerSettings"),
            in_flight=PROCESSES * calls,
            scales=True,
            variables=variables,
            kept=_keys("arq:result:*"),
            environment="arq",
        ),
        Contender(
            name="saq",
            module="with_saq",
            distributions=("saq", "redis", "aiohttp", "uvloop"),
            how=f"{PROCESSES} processes × {calls} tasks",
            worker=("-m", "saq", "contenders.with_saq.settings", "--workers", "2", "--quiet"),
            in_flight=PROCESSES * calls,
            scales=True,
            variables=variables,
            kept=_saq_kept,
            environment="saq",
        ),
        Contender(
            name="taskiq",
            module="with_taskiq",
            distributions=("taskiq", "taskiq-redis", "redis", "aiohttp", "uvloop"),
            how=f"Redis stream, {PROCESSES} processes × {calls} tasks",
            worker=(
                *("-m", "taskiq", "worker", "contenders.with_taskiq:broker", "--workers", "2"),
                *("--max-async-tasks", str(calls), "--log-level", "WARNING"),
            ),
            in_flight=PROCESSES * calls,
            scales=True,
            variables=variables,
            kept=_keys("result:*"),
            environment="taskiq",
        ),
        Contender(
            name="streaq",
            module="with_streaq",
            distributions=("streaq", "coredis", "aiohttp", "uvloop"),
            how=f"{PROCESSES} processes × {calls} tasks",
            worker=("-m", "streaq", "run", "contenders.with_streaq:worker", "--workers", "2"),
            in_flight=PROCESSES * calls,
            scales=True,
            variables=variables,
            kept=_keys("streaq:default:task:results:*"),
            environment="streaq",
        ),
    )
