"""The pump: claim → send → record, with many calls in flight at once.

One thread, the caller's, talks to the ledger; calls are made on a pool of threads. What has been
claimed is always recorded before `run` returns, also when an exception (a signal) interrupts it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from ..ledger import Claim, Doorbell, Ledger, Result
from ..schemas import QueueUnavailable, SendJob, Settings, State
from .connection import Call
from .sender import Sender
from .unsent import UnsentObserver

#: How long one run claims, in seconds; then it lets Celery have the process for a moment.
SLICE_SECONDS = 5.0
#: How long (seconds) after a slice a run waits for calls in flight without claiming. If a call
#: hangs for longer, the run goes on, so that one page's slow calls do not idle the other slots.
DRAIN_SECONDS = 1.0
#: How long (seconds) a pump with nothing to do looks for more before it ends.
LINGER_SECONDS = 0.1
#: How often (seconds) a pump with free slots looks for more.
LOOK_EVERY_SECONDS = 0.01
#: A lane that opens within this time (seconds) is waited for; for later ones the sweep will ring.
WAIT_FOR_LANE_SECONDS = 1.0
#: How long (seconds) a pump that is to stop tries to record while Redis is away.
LAST_WORDS_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A recorded result, for whoever watches: logs, metrics, events.

    `held` is False when another process had taken the job over, so that nothing was recorded.
    """

    result: Result
    held: bool


@dataclass(slots=True)
class _InFlight:
    claim: Claim
    call: Call
    #: Set by the thread that made the call, when it has ended.
    result: Result | None = None


@dataclass(slots=True, kw_only=True)
class Pump:
    """Sends what the ledger has ready. Make one for each run.

    Args:
        should_stop: asked between claims; once true, no more are made.
        observe: called with each batch of recorded results. Must not raise.
        observe_unsent: called with jobs that a claim failed in place of claiming them; likewise.
    """

    ledger: Ledger
    doorbell: Doorbell
    sender: Sender
    settings: Settings
    threads: ThreadPoolExecutor
    should_stop: Callable[[], bool]
    observe: Callable[[list[Done]], None] = lambda _: None
    observe_unsent: UnsentObserver = lambda _: None

    _in_flight: dict[str, _InFlight] = field(default_factory=dict)
    _wake: SimpleQueue[None] = field(default_factory=SimpleQueue)
    _unrecorded: list[Result] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _redis_retry_at: float = 0.0
    _redis_failures: int = 0
    _lane_wait_seconds: float | None = None
    _busy_at: float = 0.0
    _looked_at: float = 0.0
    _answers_bell: bool = True

    def run(self) -> dict[str, int]:
        """Send until nothing is ready, the slice is over, or a stop is asked for.

        Returns how many jobs ended how, by state ("sent", "failed", "retrying", …).
        """
        began = self._busy_at = time.monotonic()
        try:
            while True:
                now = time.monotonic()
                if self._may_claim(now, now - began):
                    self._claim(now)
                elif self._is_over(now, now - began):
                    break
                self._collect()
                self._record()
        finally:
            self._drain()
            self._leave()
        return dict(self._counts)

    def _may_claim(self, now: float, elapsed: float) -> bool:
        return (
            not self.should_stop()
            and not self._unrecorded
            and now >= self._redis_retry_at
            and elapsed % (SLICE_SECONDS + DRAIN_SECONDS) < SLICE_SECONDS
            and len(self._in_flight) < self.settings.in_flight
            and self._has_reason_to_look(now)
        )

    def _has_reason_to_look(self, now: float) -> bool:
        if self._in_flight or self.ledger.claim_was_lost:
            return now - self._looked_at >= LOOK_EVERY_SECONDS or self._lane_wait_seconds == 0
        lane_opens = (
            self._lane_wait_seconds is not None and self._lane_wait_seconds <= WAIT_FOR_LANE_SECONDS
        )
        return lane_opens or now - self._busy_at < LINGER_SECONDS

    def _is_over(self, now: float, elapsed: float) -> bool:
        if self.should_stop():
            # Draining waits for what is in flight, but not for ever for Redis.
            return True
        if self._in_flight or self._unrecorded:
            return False
        if self.ledger.claim_was_lost:
            # What it may have claimed is given back when Redis answers again.
            return False
        return (
            elapsed >= SLICE_SECONDS
            or self._redis_failures > 0
            or not self._has_reason_to_look(now)
        )

    def _claim(self, now: float) -> None:
        """Claim as many jobs as there are free slots, and set the calls going."""
        flights = self._in_flight.values()
        try:
            claimed = self.ledger.claim(
                self.settings.in_flight - len(flights),
                in_flight_by_page=Counter(flight.claim.page_id for flight in flights),
                answers_bell=self._answers_bell,
                looks_again_in_seconds=4 * LOOK_EVERY_SECONDS,
                has_suspect=any(flight.claim.suspect for flight in flights),
            )
        except QueueUnavailable as error:
            self._redis_is_away(error)
            return
        self._redis_failures = 0
        self._answers_bell = False
        self._looked_at = now
        self._lane_wait_seconds = claimed.wait_seconds
        if claimed.claims:
            self._busy_at = now
        self._start(claimed.claims)
        if claimed.unsent:
            self._counts[str(State.FAILED)] += len(claimed.unsent)
            self.observe_unsent(claimed.unsent)
        if claimed.ring:
            self.doorbell.ring()

    def _start(self, claims: list[Claim]) -> None:
        call_seconds = self.settings.safe_call_deadline_seconds
        without_token: set[str] = set()
        for claim in claims:
            prepared = self.sender.prepare(claim, without_token)
            if isinstance(prepared, SendJob):
                flight = _InFlight(claim, Call(deadline=claim.claimed_at + call_seconds))
                self._in_flight[claim.job_id] = flight
                self.threads.submit(self._call, flight, prepared)
            else:
                self._unrecorded.append(prepared)

    def _call(self, flight: _InFlight, job: SendJob) -> None:
        flight.result = self.sender.send(flight.claim, job, flight.call)
        self._wake.put(None)

    def _collect(self) -> None:
        """Wait a little for calls to end; take those that have, cut off those that are late."""
        now = time.monotonic()
        if not self._unrecorded or now < self._redis_retry_at:
            with contextlib.suppress(Empty):
                self._wake.get(timeout=LOOK_EVERY_SECONDS)
                while True:
                    self._wake.get_nowait()
        now = time.monotonic()
        for job_id, flight in list(self._in_flight.items()):
            if flight.result is None:
                flight.call.cut_off_if_late(now)
                continue
            # In this order, an exception between the two (a signal) loses nothing.
            self._unrecorded.append(flight.result)
            del self._in_flight[job_id]

    def _record(self) -> None:
        """Record what has finished. What Redis does not take is kept for the next time."""
        if not self._unrecorded or time.monotonic() < self._redis_retry_at:
            return
        # A batch twice the same is harmless: the second time, the claims do not hold any more.
        batch = self._unrecorded[:]
        try:
            held = self.ledger.record(batch)
        except QueueUnavailable as error:
            self._redis_is_away(error)
            return
        self._redis_failures = 0
        del self._unrecorded[: len(batch)]
        self._busy_at = time.monotonic()
        done = [Done(result=result, held=ok) for result, ok in zip(batch, held, strict=True)]
        for each in done:
            self._counts[str(each.result.job_verdict.state) if each.held else "taken_over"] += 1
        self.observe(done)

    def _redis_is_away(self, error: QueueUnavailable) -> None:
        self._redis_failures += 1
        self._redis_retry_at = time.monotonic() + min(1.0, 0.05 * 2.0**self._redis_failures)
        if self._redis_failures == 1:
            logger.warning("%s; trying again", error, extra={"action": "redis_away"})

    def _drain(self) -> None:
        """Wait for the calls in flight and record all outcomes; only a long outage prevents it."""
        give_up_at: float | None = None
        while self._in_flight or self._unrecorded:
            self._collect()
            self._record()
            if self._in_flight or not self._unrecorded:
                continue
            give_up_at = give_up_at or time.monotonic() + LAST_WORDS_SECONDS
            if time.monotonic() >= give_up_at:
                logger.error(
                    "Redis is away: the outcomes of %d calls could not be recorded; when their "
                    "leases end, these jobs count as unknown_outcome: %s",
                    len(self._unrecorded),
                    " ".join(result.claim.job_id for result in self._unrecorded[:100]),
                    extra={"action": "outcomes_lost"},
                )
                return

    def _leave(self) -> None:
        """See to it that somebody looks for what comes from now on."""
        # With Redis away, the sweep rings when it is back.
        with contextlib.suppress(QueueUnavailable):
            if self.ledger.leave():
                self.doorbell.ring()
