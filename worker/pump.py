"""The pump: claim → call → judge → record, with many calls in flight at once.

The caller's thread makes the calls, on an event loop, and judges how they ended. One helper thread
talks to the ledger, so that a Redis that hangs delays no call's deadline. What has been claimed is
always recorded before `run` returns, also when an exception (a signal) interrupts it.
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

#: How long one run claims, in seconds; then it lets Celery have the process for a moment.
SLICE_SECONDS = 5.0
#: How long (seconds) after a slice a run waits for calls in flight without claiming. If a call
#: hangs for longer, the run resumes claiming, so that one page's slow calls do not idle the other
#: slots.
DRAIN_SECONDS = 1.0
#: How long (seconds) a pump with nothing to do stays attentive before it ends. A job that comes
#: meanwhile is sent without the detour by Celery, in less than half the time.
LINGER_SECONDS = 2.0
#: How long (seconds) an attentive pump waits to be woken by the ledger, before it looks by itself.
ATTEND_SECONDS = 0.25
#: How long after a claim (seconds) a pump promises to look again, so that nobody rings meanwhile.
#: If it is killed, jobs that come within this time wait for the sweep.
#: A server may end the wait 0.1 seconds late.
PROMISE_SECONDS = 2 * ATTEND_SECONDS
#: How often (seconds) a pump with calls in flight and free slots looks for more.
LOOK_EVERY_SECONDS = 0.01
#: How long (seconds) ended calls wait for others, to be recorded with them; unless half of the
#: slots, or so many, have ended before. Each visit to the ledger costs about as much as three jobs.
GATHER_SECONDS = 0.005
GATHER_JOBS = 32
#: A lane that opens within this time (seconds) is waited for; for later ones the sweep will ring.
WAIT_FOR_LANE_SECONDS = 1.0
#: A paced request may begin at least this long (seconds) after its claim was received, so that a
#: Redis that takes longer than `START_WITHIN_SECONDS` to answer slows pages down, but stops none.
START_AFTER_RECEIPT_SECONDS = 0.05
#: How long after its deadline (seconds) a call that has not ended is given up.
OVERDUE_SECONDS = 5.0
#: How long (seconds) a pump that is to stop tries to record while Redis is away.
FINAL_RECORD_TIMEOUT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Pump:
    """Sends what the ledger has ready. Make one for each run.

    Args:
        ledger_thread: runs every call of `ledger`; of one thread.
        should_stop: asked between claims; once true, no more are made.
        observe: called with each batch of recorded results.
    """

    ledger: Ledger
    ledger_thread: Executor
    sender: Sender
    client: Client
    settings: Settings
    should_stop: Callable[[], bool]
    observe: Observer = lambda _: None

    #: The stages of a job, in order: claimed, in flight, ended, judged (and not yet recorded).
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
    _looked_at: float = 0.0
    _answers_bell: bool = True

    def run(self) -> dict[str, int]:
        """Send until nothing is ready, the slice is over, or a stop is asked for.

        Returns how many jobs ended how, by state ("sent", "failed", "retrying", …).
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
        """Take every job one stage further, as far as it goes without waiting."""
        self._end_visit()
        self._start()
        self._judge()

    def _wait(self, now: float) -> None:
        """Let the calls proceed until there is something to do."""
        if self._visit is None and len(self._flights):
            since_visit = now - self._visited_at
            left = GATHER_SECONDS - since_visit
            self.client.wait(left if left > 0 else GATHER_SECONDS)
        else:
            self.client.wait(LOOK_EVERY_SECONDS)

    # Claiming: when, and what comes of it.

    def _may_claim(self, now: float, elapsed: float) -> bool:
        return (
            not self.should_stop()
            and now >= self._redis_retry_at
            and _is_in_slice(elapsed)
            and len(self._flights) < self.settings.in_flight
            and (self._more_is_ready or now - self._looked_at >= LOOK_EVERY_SECONDS)
            and self._has_reason_to_look(now)
        )

    def _has_reason_to_look(self, now: float) -> bool:
        if len(self._flights) or self.ledger.claim_was_lost:
            return True
        lane_opens = (
            self._lane_wait_seconds is not None and self._lane_wait_seconds <= WAIT_FOR_LANE_SECONDS
        )
        return lane_opens or now - self._busy_at < LINGER_SECONDS

    def _is_over(self, now: float, elapsed: float) -> bool:
        if self.should_stop():
            # Draining waits for what is in flight, but not forever for Redis.
            return True
        if len(self._flights) or self._unrecorded:
            return False
        if self.ledger.claim_was_lost:
            # What it may have claimed is released when Redis answers again.
            return False
        return (
            elapsed >= SLICE_SECONDS
            or self._redis_failures > 0
            or not self._has_reason_to_look(now)
        )

    # Visiting the ledger.

    def _begin_visit(self, now: float, *, may_claim: bool) -> None:
        """Have the ledger record what has ended, and claim, if it is time for either."""
        records = bool(self._unrecorded) and now >= self._redis_retry_at
        is_time = (
            not len(self._flights)
            or self._are_enough(len(self._unrecorded))
            or now - self._visited_at >= GATHER_SECONDS
        )
        if not (is_time and (records or may_claim)):
            return
        claim: Callable[[], Claimed] | None = None
        if may_claim:
            self._looked_at = now
            claim = partial(
                self._wait_and_claim,
                self._attend_seconds(),
                self.settings.in_flight - len(self._flights),
                in_flight_by_page=dict(self._flights.by_page),
                answers_bell=self._answers_bell,
                looks_again_in_seconds=PROMISE_SECONDS,
                has_possible_poison=self._flights.possible_poisons > 0,
                default_token=self.sender.tokens.common_fingerprint,
            )
        self._visited_at = now
        visit = self._visit = Visit(self.ledger, self._unrecorded, claim)
        self._unrecorded = []
        visit.begin(self.ledger_thread, self._wake)

    def _attend_seconds(self) -> float:
        """Return how long the ledger may wait for jobs before it claims."""
        is_busy = (
            self._answers_bell
            or self._more_is_ready
            or len(self._flights)
            or self._unrecorded
            or self.ledger.claim_was_lost
        )
        lane_wait_seconds = self._lane_wait_seconds
        lane_opens_soon = lane_wait_seconds is not None and lane_wait_seconds <= PROMISE_SECONDS
        return 0.0 if is_busy or lane_opens_soon else ATTEND_SECONDS

    def _wait_and_claim(self, seconds: float, max_jobs: int, **options: Any) -> Claimed:
        if seconds > 0:
            self.ledger.wait_for_jobs(seconds)
        return self.ledger.claim(max_jobs, **options)

    def _are_enough(self, ended: int) -> bool:
        """Return whether so many calls that ended are worth a visit."""
        return ended >= GATHER_JOBS or 2 * ended >= self.settings.in_flight

    def _wake(self) -> None:
        self.client.call_soon(self.client.wake)

    def _end_visit(self) -> None:
        """Take what the ledger answered, if it has."""
        visit = self._visit
        if visit is None or not visit.is_over():
            return
        if visit.claimed is not None:
            # In this order, an exception between the two (a signal) loses nothing.
            self._claims.extend(visit.claimed.claims)
        if visit.held is None:
            self._unrecorded[:0] = visit.batch
        self._visit = None
        if visit.held:
            self._recorded(visit.batch, visit.held)
        if visit.claimed is not None:
            self._claimed(visit.claimed)
        if isinstance(visit.error, QueueUnavailable):
            self._redis_is_away(visit.error)
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

    def _redis_is_away(self, error: QueueUnavailable) -> None:
        self._redis_failures += 1
        self._redis_retry_at = time.monotonic() + min(1.0, 0.05 * 2.0**self._redis_failures)
        if self._redis_failures == 1:
            logger.warning("%s; trying again", error, extra={"action": "redis_away"})

    # Calling and judging.

    def _start(self) -> None:
        """Start the calls of what was claimed."""
        without_token: set[str] = set()
        while self._claims:
            claim = self._claims[0]
            # An interrupted visit may have brought it twice.
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
            if self._visit is None and (self._are_enough(ended) or ended == len(self._flights)):
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
        """Judge the calls that have ended."""
        while self._ended:
            flight = self._ended[0]
            # In this order, an exception in between (a signal) loses nothing.
            self._unrecorded.append(self.sender.judge(flight))
            self._flights.remove(flight)
            self._ended.popleft()

    def _end_overdue(self) -> None:
        """End calls whose beginning or end was lost: an exception (a signal) struck just then."""
        now = time.monotonic()
        for flight in self._flights.all():
            flight.ended = now
            flight.ending = CallFailed("internal_error", "the call was interrupted")
            self._ended.append(flight)

    # Ending.

    def _drain(self) -> None:
        """Wait for the calls in flight and record all outcomes; only a long outage prevents it."""
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
            "Redis is away: the outcomes of %d calls could not be recorded; when their "
            "leases end, these jobs count as unknown_outcome: %s",
            len(self._unrecorded),
            " ".join(result.claim.job_id for result in self._unrecorded[:100]),
            extra={"action": "outcomes_lost"},
        )

    def _leave(self) -> None:
        """Make sure that a worker is woken for what comes from now on."""
        self.client.settle()
        # With Redis away, the sweep rings when it is back.
        with contextlib.suppress(QueueUnavailable):
            self.ledger_thread.submit(self.ledger.leave).result()


def _is_in_slice(elapsed_seconds: float) -> bool:
    """Return whether a run that began so long ago claims: slices alternate with drains."""
    seconds_into_period = elapsed_seconds % (SLICE_SECONDS + DRAIN_SECONDS)
    return seconds_into_period < SLICE_SECONDS
