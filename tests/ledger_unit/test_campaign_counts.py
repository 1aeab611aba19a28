"""Promise 15: each job of a campaign is counted in exactly one state.

Random lives of two campaigns, in which a process may die after every step: replies to claims are
lost, outcomes are not recorded, cancellations and releases stop early. After every step the counts
are compared with a model: the state of each job that was ever stored.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from harasocial_dispatch.ledger import Claim
from harasocial_dispatch.schemas import (
    CampaignCanceled,
    CampaignNotFound,
    IdempotencyConflict,
    OutcomeClass,
    State,
    from_ms,
)
from support.scenario import Scenario

MakeScenario = Callable[..., Scenario]

CAMPAIGNS, PAGES = ("a", "b"), ("1", "2")
ENDED = (State.SENT, State.FAILED, State.CANCELLED)
STEPS = 150


class Life:
    """Random steps on one ledger, and the state in which each job was last seen."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.random = random.Random(seed)
        self.claims: list[Claim] = []
        #: job_id -> campaign, page, state and error code. A deleted job keeps its last state.
        self.jobs: dict[str, tuple[str, str, State, str | None]] = {}
        self.steps: list[tuple[int, Callable[[], object]]] = [
            (6, self.enqueue),
            (6, self.claim),
            (8, self.record),
            (4, self.wait_and_sweep),
            (1, self.lose_claims),
            (2, self.cancel),
            (2, self.replay),
            (1, self.hold),
            (2, self.release),
            (1, self.continue_campaign_work),
        ]

    def step(self) -> str:
        weights = [weight for weight, _ in self.steps]
        (_, action) = self.random.choices(self.steps, weights)[0]
        action()
        return action.__name__

    def enqueue(self) -> None:
        campaign, page = self.random.choice(CAMPAIGNS), self.random.choice(PAGES)
        send_at = None
        if self.random.random() < 0.2:
            send_at = from_ms(self.scenario.clock_ms()) + timedelta(seconds=50)
        for _ in range(self.random.randint(1, 4)):
            with suppress(IdempotencyConflict):
                job_id = self.scenario.enqueue(
                    page,
                    campaign=campaign,
                    send_at=send_at,
                    idempotency_key=self.random.choice([*[None] * 6, "x", "y"]),
                    delivery=self.random.choice(["at_least_once", "at_most_once"]),
                )
                self.jobs.setdefault(job_id, (campaign, page, State.QUEUED, None))

    def claim(self) -> None:
        self.claims += self.scenario.ledger.claim(self.random.randint(1, 5)).claims

    def record(self) -> None:
        self.random.shuffle(self.claims)
        for claim in self.claims[:3]:
            outcome = self.random.choice(list(OutcomeClass))
            code = self.random.choice(["551", "http_500", "190"])
            self.scenario.record(claim, outcome, error_code=code)
        del self.claims[:3]

    def wait_and_sweep(self) -> None:
        self.scenario.wait(self.random.choice([0.5, 5, 65]))
        swept = self.scenario.ledger.sweep()
        if self.random.random() < 0.7:
            self.scenario.end(swept.claims)

    def lose_claims(self) -> None:
        """Lose the reply to a claim, or the process that holds all claims."""
        if self.random.random() < 0.5:
            self.scenario.claim_and_lose_the_reply(3)
        else:
            self.claims.clear()

    def some_jobs(self) -> list[str]:
        return self.random.sample(list(self.jobs), min(3, len(self.jobs)))

    def cancel(self) -> None:
        self.scenario.ledger.cancel(self.some_jobs())

    def replay(self) -> None:
        self.scenario.ledger.replay(self.some_jobs())

    def hold(self) -> None:
        with suppress(CampaignNotFound, CampaignCanceled):
            self.scenario.ledger.hold_campaign(self.random.choice(CAMPAIGNS), by="who")

    def release(self) -> None:
        with suppress(CampaignNotFound, CampaignCanceled):
            self.scenario.ledger.release_campaign(self.random.choice(CAMPAIGNS), by="who")

    def cancel_campaign(self) -> None:
        with suppress(CampaignNotFound):
            name = self.random.choice(CAMPAIGNS)
            self.scenario.ledger.cancel_campaign(name, by="who")
            for _ in range(self.random.randint(0, 3)):
                self.scenario.ledger.continue_campaign_work(name, 2)

    def continue_campaign_work(self) -> None:
        self.scenario.ledger.continue_campaign_work(limit=2)

    def check(self) -> None:
        reader = self.scenario.ledger.reader
        for job_id, status in reader.statuses(list(self.jobs)).items():
            campaign, page, *_ = self.jobs[job_id]
            code = status.error_code if status.state is State.FAILED else None
            self.jobs[job_id] = (campaign, page, status.state, code)
        for name in CAMPAIGNS:
            mine = [job[1:] for job in self.jobs.values() if job[0] == name]
            found = reader.campaign(name)
            if found is None:
                assert not mine
                continue
            assert found.rows == found.enqueued == len(mine)
            expected = Counter(state for _, state, _ in mine)
            assert +Counter(found.states) == expected
            assert +Counter(found.errors) == Counter(code for _, _, code in mine if code)
            for page_id, on_page in found.pages.items():
                here = [job[1:] for job in mine if job[0] == page_id]
                assert +Counter(on_page.states) == Counter(state for state, _ in here)
                assert +Counter(on_page.errors) == Counter(code for _, code in here if code)
            all_ended = all(state in ENDED for _, state, _ in mine)
            assert (found.finished_at is not None) == all_ended

    def finish(self) -> None:
        """If workers run, every campaign finishes."""
        for name in CAMPAIGNS:
            with suppress(CampaignNotFound, CampaignCanceled):
                self.scenario.ledger.release_campaign(name, by="who")
        for _ in range(100):
            self.scenario.wait(300)
            self.scenario.sweep()
            self.scenario.ledger.continue_campaign_work()
            for claim in self.scenario.claim(1000):
                self.scenario.record(claim, OutcomeClass.ACCEPTED)
            # Before ended jobs are deleted.
            self.check()
            if all(c.finished_at is not None for c in self.scenario.ledger.reader.campaigns()):
                return
        pytest.fail("a campaign did not finish")


@pytest.mark.parametrize("seed", range(8))
def test_counts_agree_with_a_model_after_every_step(make_scenario: MakeScenario, seed: int) -> None:
    """Campaigns are canceled in half of the lives. In some, jobs are deleted during the life."""
    ttl_seconds = 300.0 if seed % 4 == 3 else 1e6
    scenario = make_scenario(
        sent_ttl_seconds=ttl_seconds,
        failed_ttl_seconds=ttl_seconds,
        campaign_ttl_seconds=1e6,
        max_attempts=3,
        retry_max_seconds=60.0,
        expires_seconds=5000.0,
    )
    life = Life(scenario, seed)
    done: list[str] = []
    try:
        for step in range(STEPS):
            if seed % 2 and step == STEPS // 2:
                life.steps.append((1, life.cancel_campaign))
            done.append(life.step())
            life.check()
        life.finish()
    except AssertionError as error:
        raise AssertionError(f"after {', '.join(done[-10:])}") from error
    assert len(life.jobs) > 30
