"""Whatever is done to the ledger in whatever order: counts, lanes and indexes agree with the jobs.

The jobs' own hashes are the truth; everything else must say the same after every single step.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import fakeredis
import time_machine
from harasocial_dispatch.ledger import Claim
from harasocial_dispatch.schemas import (
    IdempotencyConflict,
    Outcome,
    OutcomeClass,
    Settings,
    State,
    from_ms,
)
from harasocial_dispatch.worker.outcome.classify import outcome_without_call
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

if TYPE_CHECKING:
    from .conftest import Story

START = from_ms(1_769_851_800_000)
PAGES = ["1", "2", "3"]
WAITING = (OutcomeClass.THROTTLED, OutcomeClass.APP_THROTTLED, OutcomeClass.RESTRICTED)
ENDED = {State.SENT, State.FAILED, State.CANCELLED}

pages = st.sampled_from(PAGES)
outcomes = st.builds(
    Outcome,
    outcome_class=st.sampled_from(OutcomeClass),
    error_code=st.sampled_from(["551", "190", "http_500"]),
    error_message=st.sampled_from([None, "it failed"]),
    http_status=st.sampled_from([None, 200, 500]),
    retry_after_seconds=st.sampled_from([None, None, 0.0, 5.0, 90.0, 4000.0]),
    posted=st.booleans(),
    final=st.booleans(),
)


class LedgerMachine(RuleBasedStateMachine):
    """Random steps of producers, workers, sweeps and people, on one ledger."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")
    swept_claims = Bundle("swept_claims")

    #: Set by the test: how to make a story. The machine is made by hypothesis.
    story_class: type[Story]

    @initialize(
        page_rate=st.sampled_from([0.0, 0.0, 2.0]),
        max_attempts=st.integers(1, 3),
        ttl_seconds=st.sampled_from([100.0, 1e6]),
    )
    def begin(self, page_rate: float, max_attempts: int, ttl_seconds: float) -> None:
        self.travel = time_machine.travel(START, tick=False)
        clock = self.travel.start()
        client = fakeredis.FakeRedis(decode_responses=True)
        made = Settings(
            namespace="test",
            page_rate=page_rate,
            page_burst=2,
            max_attempts=max_attempts,
            sent_ttl_seconds=ttl_seconds,
            failed_ttl_seconds=ttl_seconds,
            expires_seconds=2000.0,
        )
        self.story = self.story_class(client, clock, made)
        #: How often each job was recorded as sent, and claimed to be sent.
        self.sent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def teardown(self) -> None:
        if not hasattr(self, "travel"):
            return
        try:
            self.everything_ends()
        finally:
            self.travel.stop()

    @rule(
        target=jobs,
        page_id=pages,
        urgent=st.booleans(),
        later=st.sampled_from([None, None, 30, 3000]),
        expires=st.sampled_from([None, None, 3500]),
        key=st.sampled_from([None, None, None, "a", "b"]),
        delivery=st.sampled_from(["at_least_once", "at_most_once"]),
    )
    def enqueue(
        self,
        page_id: str,
        urgent: bool,
        later: int | None,
        expires: int | None,
        key: str | None,
        delivery: str,
    ) -> Any:
        now = from_ms(self.story.clock_ms())
        try:
            job_id = self.story.enqueue(
                page_id,
                urgent=urgent,
                send_at=None if later is None else now + timedelta(seconds=later),
                expires_at=None if expires is None else now + timedelta(seconds=expires),
                idempotency_key=key,
                delivery=delivery,
            )
        except IdempotencyConflict as conflict:
            assert conflict.job_id is not None
            holder = self.story.get(conflict.job_id)
            assert holder.page_id != page_id and holder.idempotency_key == key, "promise 3"
            return multiple()
        assert self.story.get(job_id).page_id == page_id, "promise 3"
        return job_id

    @rule(
        target=claims,
        max_jobs=st.integers(1, 6),
        attentive=st.booleans(),
        has_possible_poison=st.booleans(),
    )
    def claim(self, max_jobs: int, attentive: bool, has_possible_poison: bool) -> Any:
        found = self.story.ledger.claim(
            max_jobs,
            answers_bell=attentive,
            looks_again_in_seconds=0.04 if attentive else 0.0,
            has_possible_poison=has_possible_poison,
        )
        assert len(found.claims) <= max_jobs
        to_send = [claim for claim in found.claims if outcome_without_call(claim) is None]
        poisons = sum(claim.possible_poison for claim in to_send)
        assert poisons <= (0 if has_possible_poison else 1)
        assert all(self.sent[claim.job_id] == 0 for claim in found.claims), "promise 4"
        self.calls.update(claim.job_id for claim in found.claims)
        return multiple(*found.claims)

    @rule(max_jobs=st.integers(1, 6))
    def claim_and_lose_the_reply(self, max_jobs: int) -> None:
        claims = self.story.claim_and_lose_the_reply(max_jobs)
        self.calls.update(claim.job_id for claim in claims)

    @rule(claim=consumes(claims), outcome=outcomes)
    def record(self, claim: Claim, outcome: Outcome) -> None:
        before = self.story.ledger.reader.get(claim.job_id)
        (held,) = self.story.ledger.record([self.story.result(claim, outcome)])
        after = self.story.ledger.reader.get(claim.job_id)
        if not held:
            assert after == before, "promise 6"
            return
        assert before is not None and before.state is State.SENDING
        assert after is not None
        if outcome.outcome_class is OutcomeClass.ACCEPTED:
            self.sent[claim.job_id] += 1
        if outcome.outcome_class in WAITING:
            assert after.attempt_count == before.attempt_count, "promise 7"

    @rule(claims=st.lists(consumes(claims), max_size=4), outcome=outcomes)
    def record_together(self, claims: list[Claim], outcome: Outcome) -> None:
        held = self.story.ledger.record([self.story.result(claim, outcome) for claim in claims])
        if outcome.outcome_class is OutcomeClass.ACCEPTED:
            self.sent.update(
                claim.job_id for claim, was_held in zip(claims, held, strict=True) if was_held
            )

    @rule(seconds=st.sampled_from([0.001, 0.5, 2.0, 20.0, 61.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.story.wait(seconds)

    @rule(target=swept_claims, end_leases=st.sampled_from([True, True, False]))
    def sweep(self, end_leases: bool) -> Any:
        """The sweeper may die before it records, or record late."""
        return multiple(*self.story.ledger.sweep(end_leases=end_leases).claims)

    @rule(claims=st.lists(consumes(swept_claims), max_size=4))
    def record_swept(self, claims: list[Claim]) -> None:
        self.story.end(claims)

    @rule(some=st.lists(jobs, max_size=3))
    def cancel(self, some: list[str]) -> None:
        self.story.ledger.cancel(some)

    @rule(some=st.lists(jobs, max_size=3))
    def replay(self, some: list[str]) -> None:
        self.story.ledger.replay(some)

    @rule(page_id=pages)
    def resume(self, page_id: str) -> None:
        self.story.ledger.resume({page_id: "old-token"})

    @rule()
    def leave(self) -> None:
        self.story.ledger.leave()

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "story"):
            return
        client, key = self.story.client, self.story.key
        jobs = {
            name.removeprefix(key("job:")): client.hgetall(name)
            for name in client.scan_iter(key("job:*"), count=10_000)
        }
        by_state: dict[str, set[str]] = {state.value: set() for state in State}
        for job_id, job in jobs.items():
            by_state[job["state"]].add(job_id)

        counted = self.story.ledger.reader.count_states()
        for state in set(State) - {State.SENT, State.CANCELLED}:
            assert counted[state] == len(by_state[state.value]), state
        stored = client.hgetall(key("counts"))
        assert all(int(count) >= 0 for count in stored.values())
        for state in ("sent", "cancelled"):
            # What expired by itself leaves its list at the next sweep.
            listed = client.lrange(key(state), 0, -1)
            assert len(listed) == len(set(listed))
            assert [job_id for job_id in listed if job_id in jobs] == listed[: len(by_state[state])]
            assert set(listed) >= by_state[state]

        lanes = set(client.zrange(key("lanes"), 0, -1))
        waiting: Counter[str] = Counter()
        for page_id in PAGES:
            for name in (f"urgent:{page_id}", f"ready:{page_id}"):
                found = client.lrange(key(name), 0, -1)
                waiting.update(found)
                assert not found or page_id in lanes
                for job_id in set(found) & by_state["queued"]:
                    assert jobs[job_id]["page_id"] == page_id
                    assert (jobs[job_id].get("urgent") == "1") == name.startswith("urgent")
        assert all(waiting[job_id] == 1 for job_id in by_state["queued"])
        for job_id in by_state["sending"] | by_state["retrying"] | by_state["scheduled"]:
            assert waiting[job_id] == 0
        assert client.smembers(key("canceled_in_lane")) == set(waiting) - by_state["queued"]

        due = set(client.zrange(key("due"), 0, -1))
        assert due == by_state["sending"] | by_state["retrying"] | by_state["scheduled"]
        for job_id, job in jobs.items():
            assert ("claim" in job) == (job["state"] == "sending")
            assert int(job["attempts"]) <= self.calls[job_id], "one attempt per call"
            assert ("finished_at" in job) == (State(job["state"]) in ENDED)
            assert (client.ttl(key(f"job:{job_id}")) > 0) == (job["state"] in ("sent", "cancelled"))

        assert set(client.zrange(key("failed"), 0, -1)) == by_state["failed"]
        for index, field in (("failed:", "error_code"), ("failed_on:", "page_id")):
            expected: dict[str, set[str]] = {}
            for job_id in by_state["failed"]:
                expected.setdefault(jobs[job_id][field], set()).add(job_id)
            for name in client.scan_iter(key(f"{index}*"), count=10_000):
                assert set(client.zrange(name, 0, -1)) == expected.pop(
                    name.removeprefix(key(index))
                )
            assert not expected
        assert set(client.zrange(key("failed_codes"), 0, -1)) == {
            jobs[job_id]["error_code"] for job_id in by_state["failed"]
        }

    def everything_ends(self) -> None:
        """Promise 1: with workers about, every job comes to its end, and the counts say so."""
        story = self.story
        for _ in range(100):
            story.wait(300)
            story.sweep()
            for claim in story.claim(1000):
                assert self.sent[claim.job_id] == 0, "promise 4"
                self.calls[claim.job_id] += 1
                story.record(claim, OutcomeClass.ACCEPTED)
                self.sent[claim.job_id] += 1
            counts = story.counts()
            if set(counts) <= {state.value for state in ENDED}:
                break
        assert counts == story.recount()
        assert set(counts) <= {state.value for state in ENDED}


def test_any_sequence_of_operations_keeps_everything_in_agreement(story: Story):
    """A few hundred random lives of a ledger, each step of them checked."""
    machine: Any = type("Machine", (LedgerMachine,), {"story_class": type(story)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            # Explaining a failure line by line would trace all of fakeredis.
            phases=set(Phase) - {Phase.explain},
        ),
    )
