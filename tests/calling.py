"""Calls made as a worker makes them, without a worker: a sender, claims, a watch over deadlines.

As a program, it makes calls for another process, so that their memory can be measured: for each
line of JSON on standard input, one on standard output.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from harasocial_dispatch.ledger import Claim, Result
from harasocial_dispatch.sandbox import DEFAULT_TOKEN
from harasocial_dispatch.schemas import Delivery, Settings, parse_send_job
from harasocial_dispatch.worker.connection import Call
from harasocial_dispatch.worker.http_call import Endpoint
from harasocial_dispatch.worker.pump import LOOK_EVERY_SECONDS
from harasocial_dispatch.worker.sender import Sender
from harasocial_dispatch.worker.tokens import Tokens

#: Of every job, until its deadline.
REMAINING_SECONDS = 24 * 3600.0


class Caller:
    """Makes calls to one endpoint. Safe to share between threads, as a worker's are.

    Args:
        api_url: where to.
        deadline_seconds: of each call that names no other.
        settings: further settings, by their names.
    """

    def __init__(self, api_url: str, *, deadline_seconds: float = 10.0, **settings: Any) -> None:
        self.settings = Settings(token=DEFAULT_TOKEN, api_url=api_url, **settings)
        self.endpoint = Endpoint(self.settings)
        self.sender = Sender(
            endpoint=self.endpoint,
            tokens=Tokens(self.settings),
            settings=self.settings,
            jitter=lambda: 0.5,
        )
        self._deadline_seconds = deadline_seconds
        self._calls: set[Call] = set()
        self._stopping = threading.Event()
        self._watch = threading.Thread(target=self._cut_off_late_calls, daemon=True)
        self._watch.start()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        watched = self._watch.is_alive()
        self._stopping.set()
        self._watch.join()
        self.endpoint.close()
        assert watched, "the watch over deadlines has died, as the pump would have"

    def send(
        self,
        payload_id: str = "__hrf_f_1",
        *,
        deadline_seconds: float | None = None,
        delivery: Delivery = Delivery.AT_LEAST_ONCE,
    ) -> Result:
        """Make one call and return its result."""
        now = time.monotonic()
        call = Call(deadline=now + (deadline_seconds or self._deadline_seconds))
        self._calls.add(call)
        try:
            return self.call(call, payload_id, delivery=delivery)
        finally:
            self._calls.discard(call)

    def call(
        self, call: Call, payload_id: str, *, delivery: Delivery = Delivery.AT_LEAST_ONCE
    ) -> Result:
        """Make a call that nobody watches."""
        claim = claim_of(payload_id, delivery)
        return self.sender.send(claim, parse_send_job(claim.body), call)

    def _cut_off_late_calls(self) -> None:
        while not self._stopping.wait(LOOK_EVERY_SECONDS):
            now = time.monotonic()
            for call in self._calls.copy():
                call.cut_off_if_late(now)


def claim_of(payload_id: str, delivery: Delivery = Delivery.AT_LEAST_ONCE) -> Claim:
    """Return a claim made by hand of a job that was never sent before."""
    return Claim(
        job_id="job",
        token="claim",
        page_id="500725830264749",
        body={
            "recipient": {"id": "2560816460648749"},
            "message": {"payload_id": payload_id},
            "page_id": "500725830264749",
        },
        delivery=delivery,
        attempts_spent=0,
        lane_level=0,
        claimed_at_ms=0,
        claimed_at=time.monotonic(),
        remaining_seconds=REMAINING_SECONDS,
    )


def error_code(result: Result) -> str | None:
    """Return why a call did not succeed; None if it did."""
    return result.outcome.error_code


def measured(
    api_url: str, payload_id: str, delivery: str, deadline_seconds: float, settings: dict[str, Any]
) -> dict[str, Any]:
    """Make one call; return how it ended, and the seconds and kilobytes it took.

    The kilobytes are the highest resident memory during the call over that before it.
    """
    with Caller(api_url, deadline_seconds=deadline_seconds, **settings) as caller:
        before = _memory("VmRSS")
        # 5 resets the peak; see proc(5).
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
