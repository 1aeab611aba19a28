"""After any sequence of operations, counts, lanes and indexes match the jobs.

The jobs' hashes are the reference. All other keys must match them after every step.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import Any

import fakeredis
import time_machine
from harasocial_dispatch.ledger import Claim
from harasocial_dispatch.schemas import (
    CampaignCanceled,
    CampaignNotFound,
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
from support.scenario import Scenario

START = from_ms(1_769_851_800_000)
PAGES = ["1", "2", "3"]
CAMPAIGNS = ["a", "b"]
WAITING = (OutcomeClass.THROTTLED, OutcomeClass.APP_THROTTLED, OutcomeClass.RESTRICTED)
ENDED = {State.SENT, State.FAILED, State.CANCELLED}

pages = st.sampled_from(PAGES)
campaigns = st.sampled_from(CAMPAIGNS)
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
    """Random steps of producers, workers, sweeps and operators on one ledger."""

    jobs = Bundle("jobs")
    claims = Bundle("claims")
    swept_claims = Bundle("swept_claims")

    #: Set by the test: creates a scenario. Hypothesis creates the machine.
    story_class: type[Scenario]

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
        self.scenario = self.story_class(client, clock, made)
        #: How often each job was recorded as sent, and claimed for sending.
        self.sent: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        #: The page and the campaign of each job that was ever stored.
        self.stored: dict[str, tuple[str, str | None]] = {}
        self.held: set[str] = set()
        self.canceled: set[str] = set()

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
        campaign=st.sampled_from([None, None, *CAMPAIGNS]),
    )
    def enqueue(
        self,
        page_id: str,
        urgent: bool,
        later: int | None,
        expires: int | None,
        key: str | None,
        delivery: str,
        campaign: str | None,
    ) -> Any:
        now = from_ms(self.scenario.clock_ms())
        try:
            job_id = self.scenario.enqueue(
                page_id,
                urgent=urgent and campaign is None,
                send_at=None if later is None else now + timedelta(seconds=later),
                expires_at=None if expires is None else now + timedelta(seconds=expires),
                idempotency_key=key,
                delivery=delivery,
                campaign=campaign,
            )
        except IdempotencyConflict as conflict:
            assert conflict.job_id is not None
            assert self.stored[conflict.job_id][0] != page_id, "promise 3"
            return multiple()
        self.stored.setdefault(job_id, (page_id, campaign))
        assert self.stored[job_id][0] == page_id, "promise 3"
        return job_id

    @rule(
        target=claims,
        max_jobs=st.integers(1, 6),
        attentive=st.booleans(),
        has_possible_poison=st.booleans(),
    )
    def claim(self, max_jobs: int, attentive: bool, has_possible_poison: bool) -> Any:
        found = self.scenario.ledger.claim(
            max_jobs,
            answers_bell=attentive,
            next_claim_in_seconds=0.04 if attentive else 0.0,
            has_possible_poison=has_possible_poison,
        )
        assert len(found.claims) <= max_jobs
        for claim in found.claims:
            assert self.stored[claim.job_id][1] not in self.held | self.canceled
        to_send = [claim for claim in found.claims if outcome_without_call(claim) is None]
        poisons = sum(claim.possible_poison for claim in to_send)
        assert poisons <= (0 if has_possible_poison else 1)
        assert all(self.sent[claim.job_id] == 0 for claim in found.claims), "promise 4"
        self.calls.update(claim.job_id for claim in found.claims)
        return multiple(*found.claims)

    @rule(max_jobs=st.integers(1, 6))
    def claim_and_lose_the_reply(self, max_jobs: int) -> None:
        claims = self.scenario.claim_and_lose_the_reply(max_jobs)
        self.calls.update(claim.job_id for claim in claims)

    @rule(claim=consumes(claims), outcome=outcomes)
    def record(self, claim: Claim, outcome: Outcome) -> None:
        before = self.scenario.ledger.reader.get(claim.job_id)
        (held,) = self.scenario.ledger.record([self.scenario.result(claim, outcome)])
        after = self.scenario.ledger.reader.get(claim.job_id)
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
        held = self.scenario.ledger.record(
            [self.scenario.result(claim, outcome) for claim in claims]
        )
        if outcome.outcome_class is OutcomeClass.ACCEPTED:
            self.sent.update(
                claim.job_id for claim, was_held in zip(claims, held, strict=True) if was_held
            )

    @rule(seconds=st.sampled_from([0.001, 0.5, 2.0, 20.0, 61.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.scenario.wait(seconds)

    @rule(target=swept_claims, end_leases=st.sampled_from([True, True, False]))
    def sweep(self, end_leases: bool) -> Any:
        """The sweeper may die before it records the results, or record them late."""
        return multiple(*self.scenario.ledger.sweep(end_leases=end_leases).claims)

    @rule(claims=st.lists(consumes(swept_claims), max_size=4))
    def record_swept(self, claims: list[Claim]) -> None:
        self.scenario.end(claims)

    @rule(some=st.lists(jobs, max_size=3))
    def cancel(self, some: list[str]) -> None:
        self.scenario.ledger.cancel(some)

    @rule(some=st.lists(jobs, max_size=3))
    def replay(self, some: list[str]) -> None:
        self.scenario.ledger.replay(some)

    @rule(page_id=pages)
    def resume(self, page_id: str) -> None:
        self.scenario.ledger.resume({page_id: "old-token"})

    @rule(campaign=campaigns)
    def hold(self, campaign: str) -> None:
        with suppress(CampaignNotFound, CampaignCanceled):
            self.scenario.ledger.hold_campaign(campaign, "why", by="who")
            self.held.add(campaign)

    @rule(campaign=campaigns)
    def release(self, campaign: str) -> None:
        with suppress(CampaignNotFound, CampaignCanceled):
            self.scenario.ledger.release_campaign(campaign, by="who")
            self.held.discard(campaign)

    @rule(campaign=campaigns, chunks=st.integers(0, 3))
    def cancel_campaign(self, campaign: str, chunks: int) -> None:
        """The canceling process may die after any step."""
        with suppress(CampaignNotFound):
            self.scenario.ledger.cancel_campaign(campaign, by="who")
            self.canceled.add(campaign)
            for _ in range(chunks):
                self.scenario.ledger.continue_campaign_work(campaign, 1)

    @rule()
    def continue_campaign_work(self) -> None:
        self.scenario.ledger.continue_campaign_work(limit=1)

    @rule()
    def leave(self) -> None:
        self.scenario.ledger.leave()

    @invariant()
    def everything_agrees(self) -> None:
        if not hasattr(self, "scenario"):
            return
        client, key = self.scenario.client, self.scenario.key
        jobs = {
            name.removeprefix(key("job:")): client.hgetall(name)
            for name in client.scan_iter(key("job:*"), count=10_000)
        }
        by_state: dict[str, set[str]] = {state.value: set() for state in State}
        for job_id, job in jobs.items():
            by_state[job["state"]].add(job_id)

        counted = self.scenario.ledger.reader.count_states()
        for state in set(State) - {State.SENT, State.CANCELLED}:
            assert counted[state] == len(by_state[state.value]), state
        stored = client.hgetall(key("counts"))
        assert all(int(count) >= 0 for count in stored.values())
        for ended in ("sent", "cancelled"):
            # The next sweep removes the ids of expired jobs from their lists.
            listed = client.lrange(key(ended), 0, -1)
            assert len(listed) == len(set(listed))
            assert [job_id for job_id in listed if job_id in jobs] == listed[: len(by_state[ended])]
            assert set(listed) >= by_state[ended]

        self.campaigns_agree(jobs)

        self.lanes_agree(jobs, by_state)

        due = set(client.zrange(key("due"), 0, -1))
        assert due == by_state["sending"] | by_state["retrying"] | by_state["scheduled"]
        for job_id, job in jobs.items():
            assert ("claim" in job) == (job["state"] == "sending")
            assert int(job["attempts"]) <= self.calls[job_id], "one attempt per call"
            assert ("finished_at" in job) == (State(job["state"]) in ENDED)
            assert (client.ttl(key(f"job:{job_id}")) > 0) == (job["state"] in ("sent", "cancelled"))

        assert set(client.zrange(key("failed"), 0, -1)) == by_state["failed"]
        indexes = {"failed:": "error_code", "failed_on:": "page_id", "failed_of:": "campaign"}
        for index, field in indexes.items():
            expected: dict[str, set[str]] = {}
            for job_id in by_state["failed"]:
                if field in jobs[job_id]:
                    expected.setdefault(jobs[job_id][field], set()).add(job_id)
            for name in client.scan_iter(key(f"{index}*"), count=10_000):
                assert set(client.zrange(name, 0, -1)) == expected.pop(
                    name.removeprefix(key(index))
                )
            assert not expected
        assert set(client.zrange(key("failed_codes"), 0, -1)) == {
            jobs[job_id]["error_code"] for job_id in by_state["failed"]
        }

    def lanes_agree(self, jobs: dict[str, dict[str, str]], by_state: dict[str, set[str]]) -> None:
        """Every queued job is in exactly one list, given by its page, campaign and attempts."""
        client, key = self.scenario.client, self.scenario.key
        lanes = set(client.zrange(key("lanes"), 0, -1))
        waiting: Counter[str] = Counter()
        for page_id in PAGES:
            names = [f"urgent:{page_id}", f"ready:{page_id}", f"again:{page_id}"]
            for campaign in CAMPAIGNS:
                names += [f"ready:{page_id}/{campaign}", f"again:{page_id}/{campaign}"]
            for name in names:
                kind, _, campaign = name.replace(":", "/").partition(f"/{page_id}")
                campaign = campaign.removeprefix("/")
                found = client.lrange(key(name), 0, -1)
                waiting.update(found)
                if found and campaign not in self.held | self.canceled:
                    assert page_id in lanes
                    turns = client.zrange(key(f"campaign_lanes:{page_id}"), 0, -1)
                    assert not campaign or campaign in turns
                for job_id in set(found) & by_state["queued"]:
                    job = jobs[job_id]
                    assert job["page_id"] == page_id
                    assert job.get("campaign", "") == campaign
                    assert (job.get("urgent") == "1") == (kind == "urgent")
                    spent = int(job["attempts"]) - int(job.get("attempts_before_replay", 0))
                    assert kind == "urgent" or (spent > 0) == (kind == "again")
        assert all(waiting[job_id] == 1 for job_id in by_state["queued"])
        for job_id in by_state["sending"] | by_state["retrying"] | by_state["scheduled"]:
            assert waiting[job_id] == 0
        assert client.smembers(key("canceled_in_lane")) == set(waiting) - by_state["queued"]

    def campaigns_agree(self, jobs: dict[str, dict[str, str]]) -> None:
        """Every job of a campaign is counted in one state, even after it was deleted."""
        for name in CAMPAIGNS:
            mine = {job_id: page for job_id, (page, of) in self.stored.items() if of == name}
            campaign = self.scenario.ledger.reader.campaign(name)
            if campaign is None:
                assert not mine
                continue
            kept = Counter(jobs[job_id]["state"] for job_id in mine if job_id in jobs)
            for state, count in campaign.states.items():
                is_final = state in (State.SENT, State.FAILED, State.CANCELLED)
                assert count >= kept[state.value] if is_final else count == kept[state.value]
            assert campaign.rows == campaign.enqueued == len(mine), "promise 15"
            assert sum(campaign.errors.values()) == campaign.states[State.FAILED]
            assert (campaign.finished_at is not None) == (campaign.ended == len(mine))
            by_page = Counter(mine.values())
            for page_id, page in campaign.pages.items():
                assert sum(page.states.values()) == by_page[page_id]
                assert sum(page.errors.values()) == page.states[State.FAILED]
            for state in State:
                on_pages = sum(page.states[state] for page in campaign.pages.values())
                assert on_pages == campaign.states[state]

    def everything_ends(self) -> None:
        """Promise 1: if workers run, every job ends, and the counts match."""
        scenario = self.scenario
        for campaign in self.held - self.canceled:
            scenario.ledger.release_campaign(campaign, by="who")
        for _ in range(100):
            scenario.ledger.continue_campaign_work()
            scenario.wait(300)
            scenario.sweep()
            for claim in scenario.claim(1000):
                assert self.sent[claim.job_id] == 0, "promise 4"
                self.calls[claim.job_id] += 1
                scenario.record(claim, OutcomeClass.ACCEPTED)
                self.sent[claim.job_id] += 1
            counts = scenario.counts()
            if set(counts) <= {state.value for state in ENDED}:
                break
        assert counts == scenario.recount()
        assert set(counts) <= {state.value for state in ENDED}


def test_any_sequence_of_operations_keeps_everything_in_agreement(scenario: Scenario) -> None:
    """Every step of a few hundred random sequences is checked."""
    machine: Any = type("Machine", (LedgerMachine,), {"story_class": type(scenario)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            # Explaining a failure line by line would trace all of fakeredis.
            phases=set(Phase) - {Phase.explain},
        ),
    )
