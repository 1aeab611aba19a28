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
from typing import Any, TypeVar

import redis
from contenders import Contender
from endpoints import CERTIFICATE, Endpoint, LeanEndpoint, SandboxEndpoint, quickest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, EmbeddedValkey
from workers import Workers, interpreter

#: Nothing takes this long (seconds), unless something is broken.
PATIENCE_SECONDS = 300.0
#: The slow endpoint's latency.
SLOW_SECONDS = 0.2
#: Pages of a measure that is not about them: each has a lane of its own in this project.
PAGES = 20

_AnyEndpoint = TypeVar("_AnyEndpoint", bound=Endpoint)
_HERE = str(Path(__file__).parent)


class Track:
    """An embedded Valkey, and the endpoints.

    Attributes:
        quick: answers at once; `tls` too, over HTTPS.
        slow: answers after `SLOW_SECONDS`.
        sandbox: answers at once, checks every request and records when it came.
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
        for endpoint in self._endpoints:
            endpoint.forget()

    def start(self, contender: Contender, endpoint: Endpoint) -> Workers:
        """Start the contender's worker, to send to `endpoint`."""
        log = self._folder / f"{time.monotonic_ns()}.log"
        return Workers(contender, self._environment(contender, endpoint), log)

    def produce(
        self, contender: Contender, what: str, count: int, pages: int = PAGES
    ) -> dict[str, Any]:
        """Enqueue in a process of its own; see producing.py."""
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
            # Asking is work for those asked: not often, and less often where it is much work.
            time.sleep(max(0.02, 10 * (time.monotonic() - began)))

    def used_memory(self) -> int:
        """Return the bytes that the server uses."""
        return int(self.client.info("memory")["used_memory"])

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
            "SSL_CERT_FILE": str(CERTIFICATE),
            **contender.variables,
        }
