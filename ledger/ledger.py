"""Every job's state, in Redis: the one truth about which jobs exist and where they stand.

Each method is one script call, so each happens whole or not at all, whoever dies meanwhile.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence

import redis

from ..schemas import (
    NewJob,
    Settings,
    SettingsError,
    State,
    sanitize,
)
from .claim import to_claim
from .connection import connect, translated_errors
from .exchange import (
    Claimed,
    Enqueued,
    Result,
    Swept,
    UnknownOutcome,
    Unsent,
    result_row,
)
from .reading import Reader
from .scripts import Scripts, explain_version
from .storing import store

#: Failures in a row that pause a page's lane: its breaker.
FAILURES_IN_A_ROW = 5
#: What one sweep moves, at most, of each kind.
SWEEP_LIMIT = 500
#: Characters of a sentence on a repair: it quotes a key's name, which may be of any length.
_REPAIR_CHARACTERS = 300
#: Keys of the database that one sweep looks at while lost indexes are rebuilt: about 3 ms of the
#: server's time.
_REBUILD_KEYS = 500


class Ledger:
    """The jobs of one namespace. Safe to share between threads; each process makes its own.

    A key of the namespace that another client replaced by one of another type is moved to
    `broken:<name>`, and what can be rebuilt from the jobs is rebuilt: see lua/transitions.lua.

    Args:
        settings: `redis_url`, `namespace` and the times are used.
        timeout_seconds: for connecting, and for each answer.
        client: instead of a connection made from the settings, for tests.

    Every method raises `QueueUnavailable` when Redis does not do what was asked.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout_seconds: float = 5.0,
        client: redis.Redis | None = None,
    ) -> None:
        self._settings = settings
        self._client = client or connect(
            settings.redis_url, timeout_seconds=timeout_seconds, max_connections=1024
        )
        prefix = f"{{{settings.namespace}}}:"
        self._prefix = prefix
        self._scripts = Scripts(self._client, prefix)
        # This process, as far as claims go: a token is "holder:number".
        self._holder = uuid.uuid4().hex
        self._claim_number = 0
        #: Whether the reply to the latest claim was lost, and nothing was given back yet.
        self.claim_was_lost = False
        #: Everything that changes no job.
        self.reader = Reader(self._client, prefix, settings.redis_url, self._scripts)

    def check_version(self) -> None:
        """Raise `SettingsError` if the namespace's keys are of another version of this program.

        Every script checks the same, and then does nothing; this is for those who start.
        """
        with translated_errors(self._settings.redis_url):
            problem = explain_version(self._client, self._prefix)
        if problem:
            raise SettingsError(problem)

    def enqueue(self, jobs: Sequence[NewJob], *, skip_conflicts: bool = False) -> Enqueued:
        """Store jobs: all or none, but for those in conflict (design promises 1 to 3).

        A job is in conflict if its idempotency key belongs to a job with another body.

        Args:
            jobs: validated.
            skip_conflicts: leave out jobs in conflict and report them, instead of raising.

        Raises:
            IdempotencyConflict: of the first job in conflict; nothing was stored.
            QueueUnavailable: nothing was stored.
            EnqueueUnknown: the reply was lost; the jobs may be stored.
        """
        return store(jobs, self._scripts, self._settings, skip_conflicts=skip_conflicts)

    def claim(
        self,
        max_jobs: int,
        *,
        in_flight_by_page: Mapping[str, int] | None = None,
        answers_bell: bool = False,
        looks_again_in_seconds: float = 0.0,
        has_suspect: bool = False,
    ) -> Claimed:
        """Claim at most `max_jobs` jobs that may be sent now, for `lease_seconds`.

        Args:
            max_jobs: at least 1.
            in_flight_by_page: calls under way in this process.
            answers_bell: this is the first call after a doorbell.
            looks_again_in_seconds: the caller promises to claim again within this time, so that
                nobody rings for what comes meanwhile; 0 when it may stop.
            has_suspect: a claim with `suspect` is in flight; there will be no second one.

        Not to be called by two threads at once. When its reply is lost, the next call first gives
        back what may have been claimed.
        """
        if self.claim_was_lost:
            self._give_back()
        settings = self._settings
        self._claim_number += 1
        token = f"{self._holder}:{self._claim_number}"
        # Before asking: the lease, by the server's clock, cannot have begun earlier.
        asked_at = time.monotonic()
        self.claim_was_lost = True
        with translated_errors(settings.redis_url):
            ring, wait_ms, now, unsent, *found = self._scripts(
                "claim",
                token,
                max_jobs,
                round(settings.lease_seconds * 1000),
                repr(1000 / settings.page_rate) if settings.page_rate else 0,
                settings.page_burst,
                round(settings.safe_call_deadline_seconds * 1000),
                json.dumps(in_flight_by_page or {}),
                int(answers_bell),
                round(looks_again_in_seconds * 1000),
                int(has_suspect),
            )
        self.claim_was_lost = False
        return Claimed(
            claims=[
                to_claim(
                    job_id,
                    token,
                    level,
                    int(now),
                    asked_at,
                    dict(zip(flat[::2], flat[1::2], strict=True)),
                )
                for job_id, level, flat in found
            ],
            ring=ring == 1,
            wait_seconds=None if wait_ms < 0 else wait_ms / 1000,
            unsent=[Unsent(job_id=i, page_id=p, error_code=c) for i, p, c in unsent],
        )

    def _give_back(self) -> None:
        token = f"{self._holder}:{self._claim_number}"
        with translated_errors(self._settings.redis_url):
            self._scripts("give_back", token, round(self._settings.lease_seconds * 1000))
        self.claim_was_lost = False

    def leave(self) -> bool:
        """Say that this pump stops looking. Returns whether to ring for what is ready."""
        with translated_errors(self._settings.redis_url):
            (ring,) = self._scripts("leave")
        return bool(ring == 1)

    def record(self, results: Sequence[Result]) -> list[bool]:
        """Record outcomes; for each, whether its claim still held (design promise 6)."""
        with translated_errors(self._settings.redis_url):
            held = self._scripts(
                "record",
                round(self._settings.sent_ttl_seconds),
                FAILURES_IN_A_ROW,
                *map(result_row, results),
            )
        return [answer == 1 for answer in held]

    def sweep(self, *, end_leases: bool = True) -> Swept:
        """Move on what is due, end leases that ran out, forget what is past its retention.

        While an index is rebuilt from the jobs, each sweep also does a part of that.
        """
        settings = self._settings
        with translated_errors(settings.redis_url):
            ring, oldest_ms, made_ready, more, rebuild, repairs, failed, *unknown = self._scripts(
                "sweep",
                SWEEP_LIMIT,
                int(end_leases),
                round(settings.retry_base_seconds * 1000),
                round(settings.retry_max_seconds * 1000),
                random.getrandbits(31),
                settings.max_attempts,
                round(settings.failed_ttl_seconds * 1000),
            )
            if rebuild == 1:
                (rebuild,) = self._scripts(
                    "rebuild",
                    _REBUILD_KEYS,
                    round(settings.lease_seconds * 1000),
                    round(settings.retry_max_seconds * 1000),
                )
        return Swept(
            ring=ring == 1,
            made_ready=made_ready,
            more=1 in (more, rebuild),
            oldest_due_seconds=int(oldest_ms) / 1000,
            unknown=[
                UnknownOutcome(
                    job_id=job_id, page_id=page_id, state=State(state), attempts_spent=int(spent)
                )
                for job_id, page_id, state, spent in unknown
            ],
            unsent=[
                Unsent(job_id=job_id, page_id=page_id, error_code=code)
                for job_id, page_id, code in failed
                if code != "unknown_outcome"
            ],
            repairs=[sanitize(text, _REPAIR_CHARACTERS) for text in repairs],
        )

    def resume(self, refused: Mapping[str, str]) -> bool:
        """End the pauses of pages (page_id → fingerprint of the token that was refused).

        Returns whether to ring.
        """
        pairs = [text for pair in refused.items() for text in pair]
        with translated_errors(self._settings.redis_url):
            ring, _ = self._scripts("resume", *pairs)
        return bool(ring == 1)

    def cancel(self, job_ids: Sequence[str]) -> list[State | None]:
        """Call off jobs not yet sent; returns each one's state afterwards, None if unknown."""
        with translated_errors(self._settings.redis_url):
            _, *states = self._scripts("cancel", round(self._settings.failed_ttl_seconds), *job_ids)
        return [_state(text) for text in states]

    def replay(self, job_ids: Sequence[str]) -> tuple[list[State | None], bool]:
        """Queue failed jobs again; returns each one's state before, and whether to ring."""
        with translated_errors(self._settings.redis_url):
            ring, *states = self._scripts(
                "replay", round(self._settings.expires_seconds * 1000), *job_ids
            )
        return [_state(text) for text in states], ring == 1

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _state(text: str) -> State | None:
    try:
        return State(text)
    except ValueError:
        return None
