"""A ledger on fakeredis, whose clock only moves when a test moves it.

The Lua scripts run in a real Lua interpreter. Only the Redis commands are simulated. fakeredis uses
Python's clock, so a test that moves this clock moves leases, retries and retentions.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import redis
from harasocial_dispatch.ledger import Campaign, Claim, Ledger, Result, Swept
from harasocial_dispatch.schemas import (
    JobRecord,
    Outcome,
    OutcomeClass,
    Settings,
    State,
    parse_new_job,
)
from harasocial_dispatch.worker.outcome.classify import outcome_without_call
from harasocial_dispatch.worker.outcome.policy import judge

from .harness import present

START = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
PREFIX = "{test}:"


@dataclass
class Scenario:
    """A ledger with its client and clock, and short methods for common steps.

    Attributes:
        rung: the number of times that the ledger rang the doorbell.
    """

    client: Any
    clock: Any
    settings: Settings
    ledger: Ledger = field(init=False)
    rung: int = 0

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.settings, client=self.client, ring=self._ring)

    def _ring(self) -> None:
        self.rung += 1

    def rings(self, action: Callable[[], object]) -> bool:
        """Run `action`. Return whether the ledger rang the doorbell."""
        before = self.rung
        action()
        assert self.rung <= before + 1
        return self.rung > before

    def enqueue(self, page_id: str = "1", **options: Any) -> str:
        """Enqueue a job and return its id."""
        body = {
            "recipient": {"id": "2560816460648749"},
            "message": {"payload_id": "__hrf_f_1"},
            "page_id": page_id,
        }
        (job_id,) = self.ledger.enqueue([parse_new_job(body, options)]).job_ids
        return job_id

    def claim(self, max_jobs: int = 100, **options: Any) -> list[Claim]:
        """Claim like a worker: record the jobs that cannot be sent, and return the others."""
        return self.end(self.ledger.claim(max_jobs, **options).claims)

    def claim_and_lose_the_reply(self, max_jobs: int = 100) -> list[Claim]:
        """Claim like a worker whose connection breaks before the reply."""
        claims = self.ledger.claim(max_jobs).claims
        self.ledger._lost_claim = claims[0].token if claims else None
        return claims

    def sweep(self, *, end_leases: bool = True) -> Swept:
        """Sweep like a worker: record the jobs that were claimed."""
        swept = self.ledger.sweep(end_leases=end_leases)
        assert self.end(swept.claims) == []
        return swept

    def end(self, claims: list[Claim]) -> list[Claim]:
        """Record the jobs that must not be sent, and return the others."""
        results = [
            self.result(claim, outcome)
            for claim in claims
            if (outcome := outcome_without_call(claim)) is not None
        ]
        self.ledger.record(results)
        return [claim for claim in claims if outcome_without_call(claim) is None]

    def claim_ids(self, max_jobs: int = 100) -> list[str]:
        return [claim.job_id for claim in self.claim(max_jobs)]

    def result(self, claim: Claim, outcome: Outcome, fingerprint: str = "old-token") -> Result:
        """Judge an outcome like a worker, without randomness. The call took 250 ms."""
        called = outcome_without_call(claim) is None
        return judge(
            claim,
            outcome,
            now=claim.claimed_at + 0.25 * called,
            began=claim.claimed_at if called else None,
            token_fingerprint=fingerprint,
            settings=self.settings,
            jitter=1.0,
        )

    def record(self, claim: Claim, outcome_class: OutcomeClass, **outcome: Any) -> bool:
        """Record the outcome of an attempt. Return whether the claim was still valid."""
        if outcome_class is not OutcomeClass.ACCEPTED:
            outcome = {"error_code": "http_500", "error_message": "it failed", **outcome}
        made = Outcome(outcome_class=outcome_class, **outcome)
        (held,) = self.ledger.record([self.result(claim, made)])
        return held

    def fail(self, page_id: str = "1", error_code: str = "551", **options: Any) -> str:
        """Enqueue a job, and fail it with a permanent refusal."""
        job_id = self.enqueue(page_id, **options)
        (claim,) = [claim for claim in self.claim() if claim.job_id == job_id]
        self.record(claim, OutcomeClass.PERMANENT, error_code=error_code, http_status=400)
        return job_id

    def fail_token(self, page_id: str) -> None:
        """Record a refusal of the page's token, which pauses its lane."""
        job_id = self.enqueue(page_id)
        (claim,) = [claim for claim in self.claim() if claim.job_id == job_id]
        self.record(claim, OutcomeClass.AUTH, error_code="190", http_status=401)

    def get(self, job_id: str) -> JobRecord:
        return present(self.ledger.reader.get(job_id), f"the job {job_id!r}")

    def campaign(self, name: str) -> Campaign:
        return present(self.ledger.reader.campaign(name), f"the campaign {name!r}")

    def state(self, job_id: str) -> State:
        return self.get(job_id).state

    def wait(self, seconds: float) -> None:
        """Move the ledger's clock forward."""
        self.clock.shift(seconds)

    def clock_ms(self) -> int:
        """Return the time of the ledger's clock, in milliseconds since the epoch."""
        seconds, microseconds = self.client.time()
        return int(seconds * 1000 + microseconds // 1000)

    def key(self, name: str) -> str:
        return PREFIX + name

    def recount(self) -> Counter[str]:
        """Count the stored jobs by state."""
        names = self.client.scan_iter(self.key("job:*"), count=10_000)
        return Counter(self.client.hget(name, "state") for name in names)

    def counts(self) -> Counter[str]:
        """Return the ledger's counts of jobs by state."""
        counted = self.ledger.reader.count_states()
        return Counter({state.value: count for state, count in counted.items() if count})


class SimulatedClock:
    """The clock for the scripts of a `QuickScenario`. It only moves when a test moves it."""

    def __init__(self, client: Any, key: str) -> None:
        self._client, self._key = client, key
        self.microseconds = round(START.timestamp() * 1e6)
        self.shift(0)

    def shift(self, seconds: float) -> None:
        self.microseconds += round(seconds * 1e6)
        seconds, rest = divmod(self.microseconds, 1_000_000)
        self._client.set(self._key, f"{seconds} {rest}")


class QuickScenario(Scenario):
    """A scenario on a real server, for simulations. It is much faster than fakeredis.

    The server's clock cannot be moved, so the scripts read another clock. Keys still expire by the
    server's clock.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.use_clock(self.ledger)

    @classmethod
    def on(cls, server_url: str, **changes: Any) -> QuickScenario:
        ours = {"page_rate": 0.0, "retry_base_seconds": 2.0, **changes}
        made = Settings(redis_url=server_url, namespace=f"sim-{uuid.uuid4().hex[:12]}", **ours)
        client = redis.Redis.from_url(server_url, decode_responses=True)
        return cls(client, SimulatedClock(client, f"{{{made.namespace}}}:clock_of_test"), made)

    def use_clock(self, ledger: Ledger) -> Ledger:
        """Make the scripts of a ledger read the simulated clock."""
        scripts = ledger._scripts
        for name, text in scripts._texts.items():
            assert "redis.call('TIME')" in text
            scripts._texts[name] = text.replace(
                "redis.call('TIME')",
                "{ string.match(redis.call('GET', KEYS[1] .. 'clock_of_test'), '(%d+) (%d+)') }",
            )
        scripts._digests.update(
            (name, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
            for name, text in scripts._texts.items()
        )
        return ledger

    def clock_ms(self) -> int:
        microseconds: int = self.clock.microseconds
        return microseconds // 1000

    def key(self, name: str) -> str:
        return f"{{{self.settings.namespace}}}:{name}"
