"""The test kit: a producer with its own jobs, and a worker without a network."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import patch

from ..ledger import Claim, Result
from ..producer import Producer
from ..sandbox import DEFAULT_TOKEN, Sandbox
from ..schemas import JobRecord, Settings, State
from ..worker.http import Endpoint
from ..worker.sender import Flight, Sender
from ..worker.tokens import Tokens
from .endpoint import call
from .matching import explain_mismatch, matching
from .server import InMemory, RealServer, Server

#: The API's URL during a test: a port of this host where nothing listens. So a worker that a test
#: starts cannot reach the API.
_NOWHERE = "http://127.0.0.1:9/social/messages.json"
#: Environment variables that would replace `_NOWHERE` or its token.
_OTHER_SOURCES = ("HARASOCIAL_API_URL_FILE", "HARASOCIAL_TOKEN_FILE", "HARASOCIAL_TOKENS_FILE")
#: Maximum jobs per claim.
_BATCH_SIZE = 32
#: The smallest step of the clock. The step doubles as long as nothing can be sent.
_FIRST_STEP_SECONDS = 0.001
#: Maximum jobs in a list.
_MAX_JOBS = 100_000
_ENDED = frozenset({State.SENT, State.FAILED, State.CANCELLED})


class TestKit:
    """Keeps the jobs that an app enqueues, and sends them to a `Sandbox` without a network.

        with TestKit() as harasocial:
            place_order()
            harasocial.assert_enqueued(payload_id="__hrf_f_…", count=1)

    While it is active, every `Producer` of this process uses the kit, regardless of its settings
    and of the time of its creation. This includes `harasocial_dispatch.producer.enqueue` and the
    other functions of that module. The kit rings no doorbell, and connects only to the server of
    `redis_url`.

    Args:
        redis_url: a Redis or Valkey server, where the kit uses its own namespace; None for a server
            in memory (fakeredis).
        settings: other settings by name, such as `max_attempts=3`.

    Attributes:
        settings: the settings of `producer` and of `drain`.
        producer: a producer, for code that expects one.
        sandbox: the stand-in for the API. The kit calls it directly, so it does not need to be
            started.

    Raises:
        ModuleNotFoundError: fakeredis is not installed.
    """

    __test__ = False  # pytest must not collect it as a test class

    def __init__(self, redis_url: str | None = None, **settings: Any) -> None:
        self._server: Server = InMemory() if redis_url is None else RealServer()
        self.settings = Settings(
            **{
                "redis_url": redis_url or Settings().redis_url,
                "namespace": f"test-{uuid.uuid4().hex}",
                "api_url": _NOWHERE,
                "token": DEFAULT_TOKEN,
                "page_rate": 0.0,
                **settings,
            }
        )
        self._ledger = self._server.ledger(self.settings)
        self.producer = Producer(self.settings, ledger=self._ledger)
        self.sandbox = Sandbox()
        self._sender = Sender(
            endpoint=Endpoint(self.settings),
            tokens=Tokens(self.settings),
            settings=self.settings,
            jitter=lambda: 0.5,
        )
        self._lane_opens_in_seconds: float | None = None
        self._active = ExitStack()

    def __enter__(self) -> TestKit:
        # A property takes precedence over the attribute of the same name of each producer.
        ledger = property(
            lambda _: self._ledger,
            lambda producer, ledger: producer.__dict__.update(_ledger=ledger),
        )
        self._active.enter_context(patch.object(Producer, "_ledger", ledger, create=True))
        self._active.enter_context(patch.dict(os.environ, self._environment()))
        for name in _OTHER_SOURCES:
            os.environ.pop(name, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._active.close()
        self._ledger.close()

    def enqueued(self) -> list[JobRecord]:
        """Return all jobs in any state, in the order of enqueueing."""
        return self._ledger.in_order(self.producer.find_jobs(limit=_MAX_JOBS))

    def assert_enqueued(
        self,
        *,
        page_id: str | None = None,
        recipient_id: str | None = None,
        payload_id: str | None = None,
        metadata: str | None = None,
        idempotency_key: str | None = None,
        campaign: str | None = None,
        count: int | None = None,
    ) -> list[JobRecord]:
        """Return the jobs that have all given values. Fail if there is none.

        Args:
            count: the exact number of such jobs. `assert_enqueued(count=0)` asserts that nothing
                was enqueued.

        Raises:
            AssertionError: with a list of the enqueued jobs.
        """
        __tracebackhide__ = True
        wanted = _given(
            page_id=page_id,
            recipient_id=recipient_id,
            payload_id=payload_id,
            metadata=metadata,
            idempotency_key=idempotency_key,
            campaign=campaign,
        )
        jobs = self.enqueued()
        found = matching(jobs, wanted)
        if len(found) != count if count is not None else not found:
            raise AssertionError(explain_mismatch(jobs, wanted, found=len(found), count=count))
        return found

    def reply_next(
        self,
        behavior: str,
        *,
        times: int = 1,
        page_id: str | None = None,
        recipient_id: str | None = None,
        payload_id: str | None = None,
        metadata: str | None = None,
    ) -> None:
        """Plan the reply to the next message, or to the next message that has all given values.

            harasocial.reply_next("code:551", recipient_id="2560816460648749")
            harasocial.reply_next("status:503", times=3)

        Args:
            behavior: a behavior of the sandbox: the part after `sandbox:` in its payload ids.
            times: the number of messages.

        Raises:
            UnknownBehaviorError: there is no such behavior.
        """
        wanted = _given(
            page_id=page_id, recipient_id=recipient_id, payload_id=payload_id, metadata=metadata
        )
        self.sandbox.reply_next(behavior, times=times, **wanted)

    def drain(self, *, within: timedelta | None = None) -> list[JobRecord]:
        """Send every waiting job. Return all jobs in the order of enqueueing.

        A job has either ended (`sent`, `failed` or `canceled`), or it still waits: for a later
        `send_at`, for a longer pause, or for a page that is paused by an operator.

        Args:
            within: how far the server's clock is moved forward for retries, pauses and scheduled
                jobs; by default one day. At the end, the clock is set back. The clock of a real
                server cannot be moved, so there the wait takes real time: by default at most 2
                seconds.
        """
        waiting = [job.job_id for job in self.enqueued() if job.state not in _ENDED]
        left_seconds = (self._server.longest_wait if within is None else within).total_seconds()
        step_seconds = _FIRST_STEP_SECONDS
        try:
            while True:
                if self._send_ready():
                    step_seconds = _FIRST_STEP_SECONDS
                due_seconds = self._due_in_seconds()
                if due_seconds is None or due_seconds > left_seconds:
                    break
                # Time must pass even if a ready job is not claimed.
                wait_seconds = max(due_seconds, step_seconds)
                step_seconds *= 2
                left_seconds -= wait_seconds
                self._server.pass_time(wait_seconds)
        finally:
            self._server.return_to_now()
        return [self.producer.get_job(job_id) for job_id in waiting]

    def _send_ready(self) -> bool:
        """Send the jobs that may be sent now. Return whether there were any."""
        any_sent = False
        while True:
            swept = self._ledger.sweep()
            claimed = self._ledger.claim(_BATCH_SIZE)
            self._lane_opens_in_seconds = claimed.wait_seconds
            claims = swept.claims + claimed.claims
            if claims:
                self._ledger.record([self._send(claim) for claim in claims])
                any_sent = True
            elif not swept.more:
                return any_sent

    def _send(self, claim: Claim) -> Result:
        prepared = self._sender.prepare(claim, set())
        if not isinstance(prepared, Flight):
            return prepared
        # Use the simulated duration, not the real one, so that slow machines get the same results.
        prepared.began = claim.claimed_at
        prepared.ending, seconds = call(self.sandbox, prepared.request, self.settings)
        prepared.ended = prepared.began + seconds
        return self._sender.judge(prepared)

    def _due_in_seconds(self) -> float | None:
        """Return the time until the next job can be sent, or None if no job waits for a time."""
        reader = self._ledger.reader
        now = datetime.fromtimestamp(reader.now_ms() / 1000, timezone.utc)
        waits = [
            (job.next_attempt_at - now).total_seconds()
            for state in (State.RETRYING, State.SCHEDULED)
            for job in reader.waiting_page(state, limit=1).records
            if job.next_attempt_at is not None
        ]
        if self._lane_opens_in_seconds is not None:
            waits.append(self._lane_opens_in_seconds)
        return min(waits, default=None)

    def _environment(self) -> dict[str, str]:
        variables = {"HARASOCIAL_API_URL": _NOWHERE, "HARASOCIAL_TOKEN": DEFAULT_TOKEN}
        if isinstance(self._server, RealServer):
            # The environment of processes that a test starts.
            variables["HARASOCIAL_REDIS_URL"] = self.settings.redis_url
            variables["HARASOCIAL_NAMESPACE"] = self.settings.namespace
        return variables


def _given(**values: str | None) -> dict[str, str]:
    """Return the values that are not None, by name."""
    return {name: value for name, value in values.items() if value is not None}
