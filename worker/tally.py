"""What one worker counts: whole numbers by name and labels, which add up over its processes. Pure.

A key is `(name, label, …)`; of a histogram there is one key for each bucket, not cumulative, and
one for the sum, in milliseconds.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ..ledger import UnknownOutcome, Unsent
from ..schemas import OutcomeClass, State, harmless
from .pump import Done

Key = tuple[str, ...]
Tally = Counter[Key]

#: Error codes with a label of their own: those that a worker met first; all others are `other`.
MAX_ERROR_CODES = 50
_OTHER = "other"
_MAX_LABEL_CHARACTERS = 64

#: Upper bounds of the buckets, in seconds: of one POST, and of a job's wait for its first one.
CALL_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
WAIT_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)

_OUTCOMES, _CALLS, _WAITS, _LOST, _BELLS = "outcomes", "calls", "waits", "claims_lost", "doorbells"
_REPAIRS = "repairs"
_SUM = "sum"

DOORBELL: Key = (_BELLS,)
REPAIR: Key = (_REPAIRS,)

#: What is there from the start, at 0: Prometheus sees no increase in what it first meets at 1.
_FROM_THE_START: tuple[Key, ...] = (
    (_OUTCOMES, State.SENT.value, ""),
    (_OUTCOMES, State.FAILED.value, "expired"),
    (_OUTCOMES, State.FAILED.value, "unknown_outcome"),
    (_OUTCOMES, State.RETRYING.value, "unknown_outcome"),
    (_CALLS, _SUM, OutcomeClass.ACCEPTED.value),
    (_WAITS, _SUM),
    (_LOST,),
    (_BELLS,),
    (_REPAIRS,),
)


def tally_of(batch: Iterable[Done]) -> Tally:
    """Return what a batch of recorded results adds."""
    tally: Tally = Counter()
    for done in batch:
        result = done.result
        claim, outcome = result.claim, result.outcome
        if outcome.posted:
            seconds = result.attempt_duration_ms / 1000
            label = outcome.outcome_class.value
            tally[_CALLS, _le(CALL_BOUNDS, seconds), label] += 1
            tally[_CALLS, _SUM, label] += result.attempt_duration_ms
        if not done.held:
            tally[_LOST,] += 1
            continue
        state = result.job_verdict.state
        tally[_OUTCOMES, state.value, outcome.error_code or ""] += 1
        # Once for each job: not when it is given back to its lane, nor for what was sent before.
        since = claim.sendable_from_ms
        if since is not None and state is not State.QUEUED and not claim.attempts:
            waited_ms = max(0, claim.claimed_at_ms - since)
            tally[_WAITS, _le(WAIT_BOUNDS, waited_ms / 1000)] += 1
            tally[_WAITS, _SUM] += waited_ms
    return tally


def tally_of_swept(jobs: Iterable[UnknownOutcome]) -> Tally:
    """Return what jobs whose lease ran out add."""
    return Counter((_OUTCOMES, job.state.value, "unknown_outcome") for job in jobs)


def tally_of_unsent(jobs: Iterable[Unsent]) -> Tally:
    """Return what jobs that were failed without an attempt add."""
    return Counter((_OUTCOMES, State.FAILED.value, job.error_code) for job in jobs)


def _le(bounds: tuple[float, ...], seconds: float) -> str:
    index = bisect_left(bounds, seconds)
    return str(bounds[index]) if index < len(bounds) else "+Inf"


class Totals(Collector):
    """The sum of all tallies, as Prometheus wants it. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tally: Tally = Counter(dict.fromkeys(_FROM_THE_START, 0))
        self._error_codes = {key[2] for key in _FROM_THE_START if key[0] == _OUTCOMES}

    def add(self, tally: Tally) -> None:
        """Add a tally."""
        with self._lock:
            for key, count in tally.items():
                self._tally[self._bounded(key)] += count

    def _bounded(self, key: Key) -> Key:
        if key[0] != _OUTCOMES:
            return key
        name, state, code = key
        if code not in self._error_codes:
            if len(self._error_codes) >= MAX_ERROR_CODES:
                return name, state, _OTHER
            self._error_codes.add(code)
        return key

    def describe(self) -> Iterable[Metric]:
        """Return nothing: names are not checked at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        with self._lock:
            tally = self._tally.copy()
        outcomes = CounterMetricFamily(
            "harasocial_outcomes",
            "Recorded outcomes, by the state that the job went to and the error code.",
            labels=["state", "error_code"],
        )
        for key, count in tally.items():
            if key[0] == _OUTCOMES:
                outcomes.add_metric([key[1], harmless(key[2], _MAX_LABEL_CHARACTERS)], count)
        yield outcomes
        yield _histogram(
            tally,
            _CALLS,
            CALL_BOUNDS,
            HistogramMetricFamily(
                "harasocial_call_duration_seconds",
                "POSTs to the API, by the class of their outcome.",
                labels=["outcome"],
            ),
        )
        yield _histogram(
            tally,
            _WAITS,
            WAIT_BOUNDS,
            HistogramMetricFamily(
                "harasocial_queue_wait_seconds",
                "From when a job could first be sent to the claim for its first attempt.",
                labels=[],
            ),
        )
        yield CounterMetricFamily(
            "harasocial_claims_lost",
            "Outcomes not recorded, since another worker had taken the job over.",
            value=tally[_LOST,],
        )
        yield CounterMetricFamily(
            "harasocial_doorbells", "Doorbells rung by this worker.", value=tally[_BELLS,]
        )
        yield CounterMetricFamily(
            "harasocial_repairs",
            "Keys in Redis that another client had changed, and that this worker repaired.",
            value=tally[_REPAIRS,],
        )


def _histogram(
    tally: Tally, name: str, bounds: tuple[float, ...], family: HistogramMetricFamily
) -> Metric:
    les = [*map(str, bounds), "+Inf"]
    sums = {key[2:]: total_ms for key, total_ms in tally.items() if key[:2] == (name, _SUM)}
    for labels, total_ms in sums.items():
        keys: list[Key] = [(name, le, *labels) for le in les]
        so_far = accumulate(tally[key] for key in keys)
        buckets = list(zip(les, so_far, strict=True))
        family.add_metric(list(labels), buckets, sum_value=total_ms / 1000)
    return family
