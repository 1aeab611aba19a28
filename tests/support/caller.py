"""Make calls like a worker, without a worker: with a sender, claims and an event loop.

Run as a program, it makes calls for another process, which can measure their memory. For each line
of JSON on standard input, it writes one to standard output.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from pathlib import Path
from typing import Any

from harasocial_dispatch.ledger import Result
from harasocial_dispatch.sandbox import DEFAULT_TOKEN
from harasocial_dispatch.schemas import Delivery, Settings
from harasocial_dispatch.worker.http import CallFailed, Client, Endpoint, Reply
from harasocial_dispatch.worker.sender import Flight, Sender
from harasocial_dispatch.worker.tokens import Tokens

from .results import make_claim

#: How long after its deadline a call may take to end, on a busy machine.
PATIENCE_SECONDS = 30.0


class Caller:
    """Makes calls to an endpoint, on an event loop in a thread. Thread-safe.

    Args:
        api_url: the URL of the endpoint.
        deadline_seconds: the default deadline of a call.
        settings: other settings by name.
    """

    def __init__(self, api_url: str, *, deadline_seconds: float = 10.0, **settings: Any) -> None:
        self.settings = Settings(token=DEFAULT_TOKEN, api_url=api_url, **settings)
        endpoint = Endpoint(self.settings)
        self.client = Client(endpoint, self.settings)
        self.sender = Sender(
            endpoint=endpoint,
            tokens=Tokens(self.settings),
            settings=self.settings,
            jitter=lambda: 0.5,
        )
        self._deadline_seconds = deadline_seconds
        self._stopping = threading.Event()
        self._loop = threading.Thread(target=self._run, daemon=True)
        self._loop.start()

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.halt()
        self.client.close()

    def halt(self) -> None:
        """Stop the event loop, as between two dispatches of a worker."""
        running = self._loop.is_alive() or self._stopping.is_set()
        self._stopping.set()
        self._loop.join()
        assert running, "the event loop has ended by itself, and so would the pump"

    def resume(self) -> None:
        """Run the event loop again."""
        self._stopping.clear()
        self._loop = threading.Thread(target=self._run, daemon=True)
        self._loop.start()

    def send(
        self,
        payload_id: str = "__hrf_f_1",
        *,
        deadline_seconds: float | None = None,
        delivery: Delivery = Delivery.AT_LEAST_ONCE,
        start_within_seconds: float = math.inf,
    ) -> Result:
        """Make a call and return its result."""
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        flight = self.sender.prepare(make_claim(payload_id, delivery=delivery), set())
        assert isinstance(flight, Flight)
        ended = threading.Event()

        def end(ending: Reply | CallFailed) -> None:
            flight.ended = time.monotonic()
            flight.ending = ending
            ended.set()

        flight.began = time.monotonic()
        start_by = flight.began + start_within_seconds
        self.client.call_soon(
            lambda: self.client.post(flight.request, flight.began + seconds, end, start_by=start_by)
        )
        assert ended.wait(seconds + PATIENCE_SECONDS), "the call did not end"
        return self.sender.judge(flight)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.client.wait(0.01)
        self.client.settle()


def error_code(result: Result) -> str | None:
    """Return the error code of a call, or None if it succeeded."""
    return result.outcome.error_code


def measured(
    api_url: str, payload_id: str, delivery: str, deadline_seconds: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Make a call. Return its outcome, and the seconds and kilobytes that it used.

    The kilobytes are the peak resident memory during the call minus the memory before it.
    """
    with Caller(api_url, deadline_seconds=deadline_seconds, **settings) as caller:
        before = _memory("VmRSS")
        # The value 5 resets the peak. See proc(5).
        Path("/proc/self/clear_refs").write_text("5")
        began = time.monotonic()
        result = caller.send(payload_id, delivery=Delivery(delivery))
        seconds = time.monotonic() - began
        peak = _memory("VmHWM")
    return {
        "outcome_class": result.outcome.outcome_class,
        "error_code": result.outcome.error_code,
        "error_message": result.outcome.error_message,
        "state": result.job_verdict.state,
        "pause_seconds": result.lane_verdict.pause_seconds,
        "seconds": seconds,
        "kilobytes": peak - before,
    }


def _memory(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"{name} is not in /proc/self/status")


def main() -> None:
    """Serve until standard input ends."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(measured(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
