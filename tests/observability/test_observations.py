"""Observations: the events that count, the sums over processes, and the limit of labels."""

from __future__ import annotations

from collections import Counter

import pytest
from harasocial_dispatch.schemas import (
    Attempt,
    OutcomeClass,
    State,
    from_ms,
)
from harasocial_dispatch.worker.observe.observations import (
    MAX_ERROR_CODES,
    MetricTotals,
    observations_of,
)
from harasocial_dispatch.worker.observe.recorded import Recorded
from hypothesis import given
from hypothesis import strategies as st
from support.results import make_claim, make_result

NOW_MS = 1_700_000_000_000


def done(
    *,
    state: State = State.SENT,
    error_code: str | None = None,
    outcome_class: OutcomeClass = OutcomeClass.ACCEPTED,
    duration_ms: int | None = 30,
    waited_ms: int | None = 1000,
    held: bool = True,
    attempts: tuple[Attempt, ...] = (),
) -> Recorded:
    """Return a recorded result."""
    claim = make_claim(
        page_id="1",
        attempts_spent=len(attempts),
        attempts=attempts,
        claimed_at_ms=NOW_MS,
        sendable_from_ms=None if waited_ms is None else NOW_MS - waited_ms,
    )
    result = make_result(
        claim, state, error_code, duration_ms=duration_ms, outcome_class=outcome_class
    )
    return Recorded(result=result, held=held)


def test_a_sent_job_counts_as_an_outcome_a_call_and_a_wait() -> None:
    """Each observation has its value and labels."""
    assert [*observations_of([done(duration_ms=50, waited_ms=1000)])] == [
        ("calls", 50, "accepted"),
        ("outcomes", 1, "sent", ""),
        ("waits", 1000),
    ]


def test_a_value_on_a_bound_belongs_below_it() -> None:
    """Prometheus defines the label `le` in this way."""
    totals = MetricTotals()
    totals.add(observations_of([done(duration_ms=50, waited_ms=1000)]))
    found = exposed(totals)
    assert found["harasocial_call_duration_seconds_bucket"]["accepted", "0.05"] == 1
    assert found["harasocial_queue_wait_seconds_bucket"]["0.5",] == 0
    assert found["harasocial_queue_wait_seconds_bucket"]["1.0",] == 1


EARLIER = (Attempt(at=from_ms(NOW_MS - 5000)),)


@pytest.mark.parametrize(
    ("what", "counted"),
    [
        (done(), {"outcomes", "calls", "waits"}),
        # Released to its lane: its wait continues.
        (done(state=State.QUEUED, error_code="http_429"), {"outcomes", "calls"}),
        # Retried or replayed: it waited for another reason.
        (done(attempts=EARLIER), {"outcomes", "calls"}),
        # No POST was made, or a process that died made it.
        (done(state=State.FAILED, error_code="invalid_job", duration_ms=None), {"outcomes"}),
        # Another process has the job, but the POST was made.
        (done(held=False), {"calls", "claims_lost"}),
        # Another client wrote it to Redis, without a time.
        (done(waited_ms=None), {"outcomes", "calls"}),
    ],
)
def test_only_real_events_are_counted(what: Recorded, counted: set[str]) -> None:
    """Each job, call or claim counts only once."""
    assert {name for name, *_ in observations_of([what])} == counted


def test_different_clocks_cause_no_negative_wait() -> None:
    """The clock of `send_at` differs from the clock of the claim."""
    assert ("waits", 0) in [*observations_of([done(waited_ms=-500)])]


def exposed(totals: MetricTotals) -> dict[str, Counter[tuple[str, ...]]]:
    """Return the value of each sample by name and labels, with `le` last."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for family in totals.collect():
        for sample in family.samples:
            values = found.setdefault(sample.name, Counter())
            labels = sorted(sample.labels.items(), key=lambda item: item[0] == "le")
            values[tuple(value for _, value in labels)] += int(sample.value)
    return found


def test_the_number_of_labels_is_limited_for_any_error_codes() -> None:
    """Codes after the first ones are counted as `other`."""
    totals = MetricTotals()
    codes = [f"10/{number}" for number in range(200)] + ["\x1b[2J" + "x" * 1000]
    batch = [done(state=State.FAILED, error_code=code) for code in codes]
    for _ in range(2):
        totals.add(observations_of(batch))
    outcomes = exposed(totals)["harasocial_outcomes_total"]
    assert len({code for _, code in outcomes}) <= MAX_ERROR_CODES + 1
    assert sum(outcomes.values()) == 2 * len(codes)
    assert outcomes["failed", "other"] > 0
    first = MetricTotals()
    first.add(observations_of(batch[-1:]))
    (label,) = {code for _, code in exposed(first)["harasocial_outcomes_total"] if "xx" in code}
    assert label.isprintable()
    assert len(label) <= 64


def test_series_without_events_exist_with_0() -> None:
    """Prometheus sees no increase if a series starts at 1, and an alert would not fire."""
    found = exposed(MetricTotals())
    assert found["harasocial_outcomes_total"]["failed", "unknown_outcome"] == 0
    assert ("failed", "unknown_outcome") in found["harasocial_outcomes_total"]
    assert () in found["harasocial_claims_lost_total"]
    assert ("accepted",) in found["harasocial_call_duration_seconds_count"]
    assert not [name for name in found if name.endswith("_created")]


results = st.builds(
    done,
    state=st.sampled_from([State.SENT, State.FAILED, State.RETRYING, State.QUEUED]),
    error_code=st.sampled_from([None, "190", "10/2018278", "timeout"]),
    outcome_class=st.sampled_from(OutcomeClass),
    duration_ms=st.integers(0, 30_000),
    waited_ms=st.integers(0, 10**9),
    held=st.booleans(),
)


@given(st.lists(st.lists(results, max_size=8), max_size=6))
def test_the_histograms_of_processes_add_up(batches: list[list[Recorded]]) -> None:
    """The sums do not depend on the distribution of results over processes."""
    parts, whole = MetricTotals(), MetricTotals()
    for batch in batches:
        parts.add(observations_of(batch))
    everything = [each for batch in batches for each in batch]
    whole.add(observations_of(everything))
    assert exposed(parts) == exposed(whole)
    found = exposed(parts)
    assert sum(found["harasocial_call_duration_seconds_count"].values()) == len(everything)
    for name in ("harasocial_call_duration_seconds", "harasocial_queue_wait_seconds"):
        for labels, count in found[f"{name}_count"].items():
            buckets = [
                bucket
                for (*others, _), bucket in found[f"{name}_bucket"].items()
                if tuple(others) == labels
            ]
            assert len(buckets) > 5
            assert buckets == sorted(buckets)
            assert buckets[-1] == count
