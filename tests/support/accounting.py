"""Check that the enqueued jobs, the POSTs and the records of a run are consistent."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Delivery, JobRecord, State

from .harness import wait_until_ended


@dataclass(frozen=True)
class Account:
    """The record of each job, and the POSTs that the endpoint received for it.

    Each job has unique metadata, which identifies its POSTs.
    """

    records: dict[str, JobRecord]
    posts: Counter[str]
    arrivals: dict[str, tuple[float, ...]]

    @property
    def posted_twice(self) -> list[str]:
        """Metadata of the jobs that were POSTed more than once."""
        return [name for name, count in self.posts.items() if count > 1]

    def unknown_outcomes(self, name: str) -> int:
        """Return the number of attempts of a job with an unknown outcome."""
        return sum(a.error_code == "unknown_outcome" for a in self.records[name].attempts)

    def check(self, *, kills_excuse_doubles: bool) -> None:
        """Assert the design promises 1, 4 and 6, which apply after every fault."""
        for name, record in self.records.items():
            posts = self.posts[name]
            # No job is lost: every job recorded as sent was received before it was recorded.
            if record.state is State.SENT:
                assert posts >= 1, f"{name} is recorded as sent but never arrived"
                assert record.finished_at is not None
                late = max(self.arrivals[name]) - record.finished_at.timestamp()
                assert late < 0.05, f"{name} was POSTed {late:.3f} s after it was recorded as sent"
            else:
                assert record.state is State.FAILED, record
                assert record.error_code == "unknown_outcome", record
            # A job is sent twice only after an attempt with an unknown outcome.
            excused = self.unknown_outcomes(name) if kills_excuse_doubles else 0
            assert posts <= 1 + excused, f"{name}: {posts} POSTs, {excused} unknown outcomes"
            if record.delivery is Delivery.AT_MOST_ONCE:
                assert posts <= 1, f"{name} is at_most_once and was POSTed {posts} times"

    def __str__(self) -> str:
        states = Counter(str(record.state) for record in self.records.values())
        doubles = len(self.posted_twice)
        return f"{dict(states)}, {self.posts.total()} POSTs, {doubles} jobs POSTed twice"


def settle(
    producer: Producer, sandbox: Sandbox, job_ids: list[str], *, seconds: float = 60
) -> Account:
    """Wait until all jobs have ended. Return the account."""
    records = wait_until_ended(producer, job_ids, seconds=seconds)
    received = sandbox.jobs()
    return Account(
        records={str(record.job["metadata"]): record for record in records},
        posts=Counter({str(job.metadata): job.posts for job in received}),
        arrivals={str(job.metadata): job.arrived_at for job in received},
    )
