"""Limits and pauses of a token apply to all its pages together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from harasocial_dispatch.ledger import APP_THROTTLED, Claim
from harasocial_dispatch.schemas import CallLimit, Outcome, OutcomeClass
from support.scenario import QuickScenario

COMMON, OWN = "c" * 16, "d" * 16
THROTTLED = Outcome(outcome_class=OutcomeClass.APP_THROTTLED, error_code="4")


class Shop:
    """Pages 1 to 3 have the common token, page 9 has its own."""

    def __init__(self, scenario: QuickScenario, jobs: int = 200) -> None:
        self.scenario = scenario
        scenario.ledger.write_page_tokens({"9": OWN, "8": OWN})
        scenario.ledger.write_page_tokens({"9": OWN})
        for page in "1239":
            for _ in range(jobs):
                scenario.enqueue(page)

    def claim(self, jobs: int = 100) -> list[Claim]:
        return self.scenario.claim(jobs, default_token=COMMON)

    def pages(self, jobs: int = 100) -> Counter[str]:
        return Counter(claim.page_id for claim in self.claim(jobs))

    def record(self, claim: Claim, outcome_class: OutcomeClass, **outcome: Any) -> None:
        made = Outcome(outcome_class=outcome_class, **outcome)
        token = OWN if claim.page_id == "9" else COMMON
        self.scenario.ledger.record([self.scenario.result(claim, made, token)])


def test_a_token_rate_holds_over_all_its_pages(
    make_quick_scenario: Callable[..., QuickScenario],
) -> None:
    """4 per second, 8 at once; another token has its own rate."""
    shop = Shop(make_quick_scenario(token_rate=4.0, token_burst=8), jobs=60)
    total: Counter[str] = Counter()
    for _ in range(101):
        total += shop.pages()
        shop.scenario.wait(0.1)
    assert total["9"] == 8 + 40
    assert total["1"] + total["2"] + total["3"] == 8 + 40
    assert min(total.values()) >= 10, "its pages share it"


def test_the_limit_in_replies_applies(quick_scenario: QuickScenario) -> None:
    """Size 80, 4 per second. Four fifths are used, because other programs use the token too."""
    shop = Shop(quick_scenario)
    first, other, *_ = shop.claim(4)
    for claim in (first, other):
        shop.record(claim, OutcomeClass.ACCEPTED, call_limit=CallLimit(10, 80))
    # The API's own bucket, with the calls that it has received.
    bucket, made, fullest = 10.0, 0, 0.0
    for _ in range(400):
        claims = [claim for claim in shop.claim() if claim.page_id != "9"]
        for claim in claims:
            bucket += 1
            made += 1
            fullest = max(fullest, bucket)
            shop.record(claim, OutcomeClass.ACCEPTED, call_limit=CallLimit(int(bucket), 80))
        quick_scenario.wait(0.1)
        bucket = max(0.0, bucket - 0.4)
    assert fullest <= 80
    assert made >= 0.95 * 4 * 40


def test_what_another_program_uses_slows_the_pages_down(quick_scenario: QuickScenario) -> None:
    """Above 80% of the limit, the pages wait until the bucket has leaked."""
    shop = Shop(quick_scenario)
    claims = [claim for claim in shop.claim(20) if claim.page_id == "1"]
    shop.record(claims[0], OutcomeClass.ACCEPTED, call_limit=CallLimit(20, 80))
    quick_scenario.wait(30)
    shop.record(claims[1], OutcomeClass.ACCEPTED, call_limit=CallLimit(76, 80))
    assert set(shop.pages()) == {"9"}
    quick_scenario.wait(2.9)
    assert "1" not in shop.pages(200)
    quick_scenario.wait(1)
    assert sum(count for page, count in shop.pages(200).items() if page != "9") in (2, 3)


def test_without_further_replies_the_limit_is_forgotten(quick_scenario: QuickScenario) -> None:
    """It is ignored after ten minutes."""
    shop = Shop(quick_scenario, jobs=40)
    claims = shop.claim(4)
    for claim in claims:
        shop.record(claim, OutcomeClass.ACCEPTED, call_limit=CallLimit(70, 80))
    quick_scenario.wait(700)
    quick_scenario.sweep()
    assert not quick_scenario.client.exists(quick_scenario.key("tokens"))
    assert len(shop.claim(200)) > 100


def test_an_app_throttled_token_pauses_all_its_pages(quick_scenario: QuickScenario) -> None:
    """1, 2, 4 … seconds; then one call of one of its pages is the probe."""
    shop = Shop(quick_scenario, jobs=50)
    claim = next(claim for claim in shop.claim(8) if claim.page_id == "1")
    shop.record(claim, OutcomeClass.APP_THROTTLED, error_code="4")
    (pause,) = quick_scenario.ledger.reader.pauses()
    assert (pause.page_id, pause.reason, pause.error_code, pause.token_fingerprint) == (
        f"token:{COMMON}",
        APP_THROTTLED,
        "4",
        COMMON,
    )
    assert quick_scenario.ledger.reader.pauses_of("9") == []
    assert quick_scenario.ledger.reader.pauses_of("2") == [pause]
    for seconds in (1, 2, 4):
        assert set(shop.pages()) <= {"9"}
        quick_scenario.wait(seconds)
        probes = [claim for claim in shop.claim() if claim.page_id != "9"]
        assert len(probes) == 1
        shop.record(probes[0], OutcomeClass.APP_THROTTLED, error_code="4")
        assert quick_scenario.get(probes[0].job_id).attempt_count == 0
    quick_scenario.wait(8)
    (probe,) = [claim for claim in shop.claim() if claim.page_id != "9"]
    shop.record(probe, OutcomeClass.ACCEPTED)
    assert quick_scenario.ledger.reader.pauses() == []
    quick_scenario.wait(1)
    assert set(shop.pages()) >= {"1", "2", "3"}


@pytest.mark.parametrize("seconds", [2, 86_400])
def test_a_clock_that_is_set_back_delays_no_token(
    quick_scenario: QuickScenario, seconds: int
) -> None:
    """The token does not wait much longer than before."""
    shop = Shop(quick_scenario, jobs=20)
    shop.record(shop.claim(1)[0], OutcomeClass.APP_THROTTLED, retry_after_seconds=30.0)
    quick_scenario.sweep()
    quick_scenario.wait(-seconds)
    quick_scenario.sweep()
    quick_scenario.wait(31)
    assert shop.pages() != Counter()
