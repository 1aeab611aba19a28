"""The shared environment of the measures: Redis, endpoints, and processes of libraries."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import redis
from contenders import Contender
from endpoints import CERTIFICATE, Endpoint, LeanEndpoint, SandboxEndpoint, quickest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, EmbeddedValkey
from workers import Workers, interpreter

#: Timeout for every step.
PATIENCE_SECONDS = 300.0
#: The slow endpoint's latency.
SLOW_SECONDS = 0.2
#: Default number of pages. In this project, each page has its own lane.
PAGES = 20

_AnyEndpoint = TypeVar("_AnyEndpoint", bound=Endpoint)
_HERE = str(Path(__file__).parent)


class Track:
    """An embedded Valkey, and the endpoints.

    Attributes:
        quick: an endpoint without a delay; `tls` is the same over HTTPS.
        slow: an endpoint with a delay of `SLOW_SECONDS`.
        sandbox: an endpoint without a delay that validates every request and records its time.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._endpoints: list[Endpoint] = []

    def __enter__(self) -> Track:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._valkey = self._stack.enter_context(EmbeddedValkey())
        self.client = redis.Redis.from_url(self._valkey.url, decode_responses=True)
        self.quick = self._serve(quickest())
        self.tls = self._serve(LeanEndpoint(tls=True))
        self.slow = self._serve(LeanEndpoint(delay_seconds=SLOW_SECONDS))
        self.sandbox = self._serve(SandboxEndpoint())
        return self

    def _serve(self, endpoint: _AnyEndpoint) -> _AnyEndpoint:
        self._endpoints.append(endpoint)
        self._stack.callback(endpoint.stop)
        return endpoint

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def clear(self) -> None:
        """Clear Redis, and reset the counts of the endpoints."""
        self.client.flushall()
        for endpoint in self._endpoints:
            endpoint.forget()

    def start(self, contender: Contender, endpoint: Endpoint) -> Workers:
        """Start the library's worker, which sends to `endpoint`."""
        log = self._folder / f"{time.monotonic_ns()}.log"
        return Workers(contender, self._environment(contender, endpoint), log)

    def produce(
        self, contender: Contender, what: str, count: int, pages: int = PAGES
    ) -> dict[str, Any]:
        """Enqueue in a separate process. See producing.py."""
        done = subprocess.run(
            [
                *(interpreter(contender), "producing.py"),
                *(contender.module, what, str(count), str(pages)),
            ],
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

    def wait_until(self, workers: Workers, condition: Callable[[], bool]) -> None:
        """Poll `condition` until it is true. Raise if the worker ends."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            began = time.monotonic()
            if condition():
                return
            workers.check()
            if began > deadline:
                raise RuntimeError(f"no end after {PATIENCE_SECONDS:.0f} s:\n{workers.log()}")
            # Polling uses CPU time, so poll less often if a poll is slow.
            time.sleep(max(0.02, 10 * (time.monotonic() - began)))

    def used_memory(self) -> int:
        """Return the memory that the server uses, in bytes."""
        return int(self.client.info("memory")["used_memory"])

    def redis_cpu_seconds(self) -> float:
        """Return the CPU time of the server so far."""
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
            "SSL_CERT_FILE": str(CERTIFICATE),
            **contender.variables,
        }
