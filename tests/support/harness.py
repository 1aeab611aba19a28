"""A harness for tests with real servers and real worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, embedded_valkey
from harasocial_dispatch.schemas import JobRecord, QueueUnavailable, Settings, State

from .forked import Script, start_script

#: Timeout for expected events on a busy machine.
DEADLINE_SECONDS = 90.0

ENDED = {State.SENT, State.FAILED, State.CANCELLED}

T = TypeVar("T")

#: The type of the fixture `start_worker`.
StartWorker = Callable[..., "WorkerProcess"]


def eventually(
    condition: Callable[[], T | None], *, seconds: float = DEADLINE_SECONDS, what: str = "it"
) -> T:
    """Wait until `condition` returns a true value, and return it. Fail after a timeout."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def present(value: T | None, what: str = "the value") -> T:
    """Return a value that is optional for the type checker. Fail if it is None."""
    assert value is not None, f"{what} is None"
    return value


def body(
    payload_id: str = "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d",
    *,
    page_id: str = "500725830264749",
    recipient_id: str = "2560816460648749",
    metadata: str | None = None,
) -> dict[str, Any]:
    """Return the API's body of a message."""
    message: dict[str, Any] = {
        "recipient": {"id": recipient_id},
        "message": {"payload_id": payload_id},
        "page_id": page_id,
    }
    return message if metadata is None else {**message, "metadata": metadata}


def free_port(wanted: int = 0) -> int:
    """Return a TCP port that nothing listens on, and that no other program gets for a minute."""
    return embedded_valkey.free_port(wanted)


def unique_settings(redis_url: str) -> Settings:
    """Return settings with a new namespace, and without a rate limit for pages."""
    return Settings(redis_url=redis_url, namespace=f"test-{uuid.uuid4().hex[:12]}", page_rate=0.0)


class WorkerProcess:
    """A real Celery worker, `celery -A harasocial_dispatch.worker worker`, in its own session.

    Args:
        new_interpreter: see `start_script`.
    """

    def __init__(
        self,
        environment: dict[str, str],
        folder: Path,
        *options: str,
        new_interpreter: bool = False,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / f"worker-{time.monotonic_ns()}.log"
        self._environment = environment
        self._folder = folder
        self._options = options or ("--concurrency", "2")
        self._new_interpreter = new_interpreter
        self._process: Script | None = None

    def start(self, *, prefix: Sequence[str] = (), wait: bool = True) -> WorkerProcess:
        """Start the worker. If `wait` is true, wait until it is ready."""
        name = f"w{time.monotonic_ns()}@%h"
        self._process = start_script(
            [
                *("celery", "-A", "harasocial_dispatch.worker", "worker"),
                *("-n", name, "-l", "INFO", "--without-gossip", "--without-mingle"),
                *self._options,
            ],
            self._environment,
            self._folder,
            self.log_file,
            own_session=True,
            prefix=prefix,
            new_interpreter=self._new_interpreter,
        )
        if wait:
            eventually(self.is_ready, what=f"the worker's start; its log: {self.log_file}")
        return self

    def is_ready(self) -> bool:
        """Return whether the worker receives doorbells."""
        assert self.process.poll() is None, f"the worker ended:\n{self.log()}"
        return " ready." in self.log()

    def log(self) -> str:
        """Return the log."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def process(self) -> Script:
        """The main process."""
        return present(self._process, "the worker's process")

    @property
    def pid(self) -> int:
        """The id of the main process."""
        return self.process.pid

    def children(self) -> list[int]:
        """Return the process ids of the prefork children."""
        if not Path("/proc/self").exists():
            listing = ["pgrep", "-P", str(self.pid)]
            found = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
            return [int(pid) for pid in found.split()]
        # Linux: a minimal system has no pgrep.
        pids: list[int] = []
        for file in Path("/proc").glob(f"{self.pid}/task/*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended
                pids += map(int, file.read_text().split())
        return pids

    def terminate(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        return self.process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Kill the worker and its children, like the out-of-memory killer."""
        if self._process is not None:
            for pid in (*self.children(), self.pid):
                kill(pid)
            self._process.wait()


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to a process. Return False if it has already ended."""
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return False
    return True


def environment(settings: Settings, api_url: str, **changes: Any) -> dict[str, str]:
    """Return this process's environment, with its HARASOCIAL_ settings replaced by these.

    `changes` are settings by the name of their variable, without the prefix.
    """
    ours = {
        "REDIS_URL": settings.redis_url,
        "NAMESPACE": settings.namespace,
        "API_URL": api_url,
        "TOKEN": DEFAULT_TOKEN,
        # No rate limit, so that tests are fast. Tests of rates set it.
        "PAGE_RATE": 0,
        **changes,
    }
    kept = {name: value for name, value in os.environ.items() if "HARASOCIAL" not in name}
    # The commands of this Python environment take precedence, even if it is not activated.
    kept["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return kept | {f"HARASOCIAL_{name}": str(v) for name, v in ours.items() if v is not None}


def wait_until_ended(
    producer: Producer, job_ids: Iterable[str], *, seconds: float = DEADLINE_SECONDS
) -> list[JobRecord]:
    """Wait until all jobs have ended. Return their records."""
    records: list[JobRecord] = []
    deadline = time.monotonic() + seconds
    for job_id in job_ids:
        record: JobRecord | None = None
        while True:
            # A slow disk delays a Redis that writes each change to it.
            with contextlib.suppress(QueueUnavailable):
                record = producer.get_job(job_id)
            if record is not None and record.state in ENDED:
                break
            assert time.monotonic() < deadline, f"{job_id} has not ended: {record}"
            time.sleep(0.02)
        records.append(record)
    return records
