"""The pump: claim → call → judge → record, with many calls in flight.

The caller's thread makes the calls, on an event loop, and judges their outcomes. A helper thread
calls the ledger, so that a hanging Redis does not delay the deadline of a call. Every claimed job
is recorded before `run` returns, even if an exception (a signal) interrupts it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..ledger import Claim, Claimed, Ledger, Result
from ..schemas import START_WITHIN_SECONDS, QueueUnavailable, Settings
from .flights import Flights
from .http import CallFailed, Client, Reply
from .ledger_visit import Visit
from .observe.recorded import Observer, pair
from .sender import Flight, Sender

#: How long a run claims. Then it returns control to Celery for a moment.
SLICE_SECONDS = 5.0
#: How long a run waits, after a slice, for calls in flight without claiming. If a call takes
#: longer, the run claims again, so that slow calls of one page do not block the other slots.
DRAIN_SECONDS = 1.0
#: How long an idle pump waits for jobs before it ends. A job that arrives meanwhile does not need
#: Celery, and is sent in less than half the time.
IDLE_SECONDS = 2.0
#: How long an idle pump waits for the ledger's signal before it tries to claim.
JOB_WAIT_SECONDS = 0.25
#: The pump claims again within this time, so producers do not ring meanwhile. If the pump is
#: killed, jobs that arrive within this time wait for the sweep. It is longer than the wait for the
#: signal, because a server may end the wait 0.1 seconds late.
NEXT_CLAIM_SECONDS = 2 * JOB_WAIT_SECONDS
#: Interval at which a pump claims while it has calls in flight and free slots.
CLAIM_EVERY_SECONDS = 0.01
#: How long ended calls wait to be recorded together. They wait less if this number of calls, or
#: half of the slots, have ended. A visit to the ledger costs about as much as three jobs.
BATCH_SECONDS = 0.005
BATCH_JOBS = 32
#: The pump waits for a lane that opens within this time. For a later one, the sweep rings.
WAIT_FOR_LANE_SECONDS = 1.0
#: A paced request always has this time to begin after its claim was received. So a Redis that takes
#: longer than `START_WITHIN_SECONDS` to reply slows pages down, but does not stop them.
START_AFTER_RECEIPT_SECONDS = 0.05
#: How long after its deadline the pump ends a call that has not ended.
OVERDUE_SECONDS = 5.0
#: How long a stopping pump tries to record outcomes while Redis is not available.
FINAL_RECORD_TIMEOUT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Pump:
    """Sends ready jobs. Each run needs a new pump.

    Args:
        ledger_thread: an executor with one thread, which runs every call of `ledger`.
        should_stop: called between claims. When it returns True, the pump stops claiming.
        observe: called with each batch of recorded results.
    """

    ledger: Ledger
    ledger_thread: Executor
    sender: Sender
    client: Client
    settings: Settings
    should_stop: Callable[[], bool]
    observe: Observer = lambda _: None

    #: The stages of a job, in order: claimed, in flight, ended, judged but not recorded.
    _claims: deque[Claim] = field(default_factory=deque)
    _flights: Flights = field(default_factory=Flights)
    _ended: deque[Flight] = field(default_factory=deque)
    _unrecorded: list[Result] = field(default_factory=list)

    _visit: Visit | None = None
    _visited_at: float = 0.0
    _counts: Counter[str] = field(default_factory=Counter)
    _redis_retry_at: float = 0.0
    _redis_failures: int = 0
    _lane_wait_seconds: float | None = None
    _more_is_ready: bool = False
    _busy_at: float = 0.0
    _claim_tried_at: float = 0.0
    _answers_bell: bool = True

    def run(self) -> dict[str, int]:
        """Send until no job is ready, the slice is over, or a stop is requested.

        Returns the number of jobs by resulting state ("sent", "failed", "retrying", …).
        """
        began = self._busy_at = time.monotonic()
        try:
            while True:
                self._advance()
                now = time.monotonic()
                if self._visit is None:
                    self._begin_visit(now, may_claim=self._may_claim(now, now - began))
                if self._visit is None and self._is_over(now, now - began):
                    break
                self._wait(now)
        finally:
            self._drain()
            self._leave()
        return dict(self._counts)

    def _advance(self) -> None:
        """Move every job to its next stage, without waiting."""
        self._end_visit()
        self._start()
        self._judge()

    def _wait(self, now: float) -> None:
        """Run the event loop until there is something to do."""
        if self._visit is None and len(self._flights):
            since_visit = now - self._visited_at
            left = BATCH_SECONDS - since_visit
            self.client.wait(left if left > 0 else BATCH_SECONDS)
        else:
            self.client.wait(CLAIM_EVERY_SECONDS)

    # Claiming.

    def _may_claim(self, now: float, elapsed: float) -> bool:
        return (
            not self.should_stop()
            and now >= self._redis_retry_at
            and _is_in_slice(elapsed)
            and len(self._flights) < self.settings.in_flight
            and (self._more_is_ready or now - self._claim_tried_at >= CLAIM_EVERY_SECONDS)
            and self._has_reason_to_claim(now)
        )

    def _has_reason_to_claim(self, now: float) -> bool:
        if len(self._flights) or self.ledger.claim_was_lost:
            return True
        lane_opens = (
            self._lane_wait_seconds is not None and self._lane_wait_seconds <= WAIT_FOR_LANE_SECONDS
        )
        return lane_opens or now - self._busy_at < IDLE_SECONDS

    def _is_over(self, now: float, elapsed: float) -> bool:
        if self.should_stop():
            # `_drain` waits for the calls in flight, but has a timeout for Redis.
            return True
        if len(self._flights) or self._unrecorded:
            return False
        if self.ledger.claim_was_lost:
            # The next claim releases the jobs of the lost claim.
            return False
        return (
            elapsed >= SLICE_SECONDS
            or self._redis_failures > 0
            or not self._has_reason_to_claim(now)
        )

    # Visiting the ledger.

    def _begin_visit(self, now: float, *, may_claim: bool) -> None:
        """Start a visit to the ledger, to record results and to claim, if one of them is due."""
        records = bool(self._unrecorded) and now >= self._redis_retry_at
        is_time = (
            not len(self._flights)
            or self._is_batch_full(len(self._unrecorded))
            or now - self._visited_at >= BATCH_SECONDS
        )
        if not (is_time and (records or may_claim)):
            return
        claim: Callable[[], Claimed] | None = None
        if may_claim:
            self._claim_tried_at = now
            claim = partial(
                self._wait_and_claim,
                self._job_wait_seconds(),
                self.settings.in_flight - len(self._flights),
                in_flight_by_page=dict(self._flights.by_page),
                answers_bell=self._answers_bell,
                next_claim_in_seconds=NEXT_CLAIM_SECONDS,
                has_possible_poison=self._flights.possible_poisons > 0,
                default_token=self.sender.tokens.common_fingerprint,
            )
        self._visited_at = now
        visit = self._visit = Visit(self.ledger, self._unrecorded, claim)
        self._unrecorded = []
        visit.begin(self.ledger_thread, self._wake)

    def _job_wait_seconds(self) -> float:
        """Return how long the ledger may wait for new jobs before it claims."""
        is_busy = (
            self._answers_bell
            or self._more_is_ready
            or len(self._flights)
            or self._unrecorded
            or self.ledger.claim_was_lost
        )
        lane_wait_seconds = self._lane_wait_seconds
        lane_opens_soon = lane_wait_seconds is not None and lane_wait_seconds <= NEXT_CLAIM_SECONDS
        return 0.0 if is_busy or lane_opens_soon else JOB_WAIT_SECONDS

    def _wait_and_claim(self, seconds: float, max_jobs: int, **options: Any) -> Claimed:
        if seconds > 0:
            self.ledger.wait_for_jobs(seconds)
        return self.ledger.claim(max_jobs, **options)

    def _is_batch_full(self, ended: int) -> bool:
        """Return whether this number of ended calls is recorded without further delay."""
        return ended >= BATCH_JOBS or 2 * ended >= self.settings.in_flight

    def _wake(self) -> None:
        self.client.call_soon(self.client.wake)

    def _end_visit(self) -> None:
        """Process the results of the visit, if it is over."""
        visit = self._visit
        if visit is None or not visit.is_over():
            return
        if visit.claimed is not None:
            # This order loses nothing if an exception (a signal) occurs between two steps.
            self._claims.extend(visit.claimed.claims)
        if visit.held is None:
            self._unrecorded[:0] = visit.batch
        self._visit = None
        if visit.held:
            self._recorded(visit.batch, visit.held)
        if visit.claimed is not None:
            self._claimed(visit.claimed)
        if isinstance(visit.error, QueueUnavailable):
            self._on_redis_error(visit.error)
        elif visit.error is not None:
            raise visit.error
        else:
            self._redis_failures = 0

    def _claimed(self, claimed: Claimed) -> None:
        self._answers_bell = False
        self._lane_wait_seconds = claimed.wait_seconds
        self._more_is_ready = bool(claimed.claims) and claimed.wait_seconds == 0
        if claimed.claims:
            self._busy_at = time.monotonic()

    def _recorded(self, batch: list[Result], held: list[bool]) -> None:
        self._busy_at = time.monotonic()
        recorded = pair(batch, held)
        for each in recorded:
            self._counts[str(each.result.job_verdict.state) if each.held else "taken_over"] += 1
        self.observe(recorded)

    def _on_redis_error(self, error: QueueUnavailable) -> None:
        self._redis_failures += 1
        self._redis_retry_at = time.monotonic() + min(1.0, 0.05 * 2.0**self._redis_failures)
        if self._redis_failures == 1:
            logger.warning("%s; trying again", error, extra={"action": "redis_away"})

    # Calling and judging.

    def _start(self) -> None:
        """Start the calls of claimed jobs."""
        without_token: set[str] = set()
        while self._claims:
            claim = self._claims[0]
            # An interrupted visit may have returned the claim twice.
            if claim.job_id not in self._flights:
                prepared = self.sender.prepare(claim, without_token)
                if isinstance(prepared, Flight):
                    self._call(prepared)
                else:
                    self._unrecorded.append(prepared)
            self._claims.popleft()

    def _call(self, flight: Flight) -> None:
        def on_end(ending: Reply | CallFailed) -> None:
            flight.ended = time.monotonic()
            flight.ending = ending
            self._ended.append(flight)
            ended = len(self._ended)
            if self._visit is None and (self._is_batch_full(ended) or ended == len(self._flights)):
                self.client.wake()

        claim = flight.claim
        deadline = claim.claimed_at + self.settings.safe_call_deadline_seconds
        start_by = math.inf
        if claim.is_paced:
            start_by = max(
                claim.claimed_at + START_WITHIN_SECONDS,
                claim.received_at + START_AFTER_RECEIPT_SECONDS,
            )
        self._flights.add(flight)
        flight.began = time.monotonic()
        self.client.post(flight.request, deadline, on_end, start_by=start_by)

    def _judge(self) -> None:
        """Judge the ended calls."""
        while self._ended:
            flight = self._ended[0]
            # This order loses nothing if an exception (a signal) occurs between two steps.
            self._unrecorded.append(self.sender.judge(flight))
            self._flights.remove(flight)
            self._ended.popleft()

    def _end_overdue(self) -> None:
        """End calls whose start or end was lost because of an exception (a signal)."""
        now = time.monotonic()
        for flight in self._flights.all():
            flight.ended = now
            flight.ending = CallFailed("internal_error", "the call was interrupted")
            self._ended.append(flight)

    # Ending.

    def _drain(self) -> None:
        """Wait for the calls in flight and record all outcomes, unless Redis has a long outage."""
        give_up_at: float | None = None
        overdue_at = time.monotonic() + self.settings.safe_call_deadline_seconds + OVERDUE_SECONDS
        while True:
            self._advance()
            now = time.monotonic()
            if now >= overdue_at:
                self._end_overdue()
            if self._visit is None:
                self._begin_visit(now, may_claim=False)
            if self._visit is None and not len(self._flights):
                if not self._unrecorded:
                    return
                give_up_at = give_up_at or now + FINAL_RECORD_TIMEOUT_SECONDS
                if now >= give_up_at:
                    break
            self._wait(now)
        logger.error(
            "Redis is not available: the outcomes of %d calls were not recorded; when their "
            "leases end, these jobs get the error code unknown_outcome: %s",
            len(self._unrecorded),
            " ".join(result.claim.job_id for result in self._unrecorded[:100]),
            extra={"action": "outcomes_lost"},
        )

    def _leave(self) -> None:
        """Make sure that a worker is woken for later jobs."""
        self.client.settle()
        # If Redis is not available, the sweep rings when it is back.
        with contextlib.suppress(QueueUnavailable):
            self.ledger_thread.submit(self.ledger.leave).result()


def _is_in_slice(elapsed_seconds: float) -> bool:
    """Return whether a run claims at this time. Slices alternate with drains."""
    seconds_into_period = elapsed_seconds % (SLICE_SECONDS + DRAIN_SECONDS)
    return seconds_into_period < SLICE_SECONDS
