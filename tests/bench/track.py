"""What the measures share: a Redis, endpoints, and contenders that are run against them."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from contenders import Contender
from endpoints import Endpoint, SandboxEndpoint, quickest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, EmbeddedValkey
from workers import Workers, interpreter

#: Nothing takes this long (seconds), unless something is broken.
PATIENCE_SECONDS = 60.0

_HERE = str(Path(__file__).parent)


class Track:
    """An embedded Valkey, an endpoint that answers at once, and one that can be told to wait."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Track:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._valkey = self._stack.enter_context(EmbeddedValkey())
        self.client = redis.Redis.from_url(self._valkey.url, decode_responses=True)
        self.quick: Endpoint = quickest()
        self._stack.callback(self.quick.stop)
        self.slow = SandboxEndpoint()
        self._stack.callback(self.slow.stop)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def clear(self) -> None:
        """Empty Redis, and forget what the endpoints received."""
        self.client.flushall()
        self.quick.forget()
        self.slow.forget()
        self.slow.sandbox.latency_seconds = 0.0

    def start(self, contender: Contender, endpoint: Endpoint) -> Workers:
        """Start the contender's worker, to send to `endpoint`."""
        log = self._folder / f"{time.monotonic_ns()}.log"
        return Workers(contender, self._environment(contender, endpoint), log)

    def produce(self, contender: Contender, what: str, count: int) -> dict[str, Any]:
        """Enqueue in a process of its own; see producing.py."""
        done = subprocess.run(
            [interpreter(contender), "producing.py", contender.module, what, str(count)],
            env=self._environment(contender, self.quick),
            cwd=_HERE,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{contender.name} could not enqueue:\n{done.stderr}")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def wait_until(self, workers: Workers, is_so: Callable[[], bool]) -> None:
        """Wait for `is_so`, asking often, as long as the worker lives."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            began = time.monotonic()
            if is_so():
                return
            workers.check()
            if began > deadline:
                raise RuntimeError(f"no end after {PATIENCE_SECONDS:.0f} s:\n{workers.log()}")
            # Where the asking itself is work, less often.
            time.sleep(max(0.01, 10 * (time.monotonic() - began)))

    def redis_cpu_seconds(self) -> float:
        """Return the CPU time that the server took so far."""
        cpu = self.client.info("cpu")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])

    def _environment(self, contender: Contender, endpoint: Endpoint) -> dict[str, str]:
        url = self._valkey.url
        kept = {name: value for name, value in os.environ.items() if "HARASOCIAL" not in name}
        return kept | {
            "PYTHONPATH": os.pathsep.join([_HERE, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "BENCH_REDIS_URL": url,
            "BENCH_API_URL": endpoint.url,
            "BENCH_TOKEN": DEFAULT_TOKEN,
            "HARASOCIAL_REDIS_URL": url,
            "HARASOCIAL_API_URL": endpoint.url,
            "HARASOCIAL_TOKEN": DEFAULT_TOKEN,
            **contender.variables,
        }
