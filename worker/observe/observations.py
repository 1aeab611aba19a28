"""Observations, made in any process, and the metrics that add them up.

An observation is `(metric, value, label, …)`, so that a list of observations is valid JSON.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ...schemas import OutcomeClass, State, sanitize
from .recorded import Recorded

Observation = Sequence[str | int]

#: Maximum error codes with their own label: the first ones of a worker. All others are `other`.
MAX_ERROR_CODES = 50
_OTHER = "other"
_MAX_LABEL_CHARACTERS = 64

#: Meta's warning before it restricts a page, in both formats. An alert rule uses it.
ABUSE_WARNINGS = ("613/2018338", "2018338")

#: Upper bounds of the buckets in seconds: duration of a POST, and wait for a job's first POST.
CALL_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
WAIT_BOUNDS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)

_PLAIN_COUNTERS = {
    "claims_lost": "Outcomes not recorded, because another worker had taken over the job.",
    "doorbells": "Doorbells rung by this worker.",
    "repairs": "Keys in Redis that this worker repaired after another client changed them.",
}


def observations_of(batch: Iterable[Recorded]) -> Iterator[Observation]:
    """Yield the observations of a batch of recorded results."""
    for recorded in batch:
        result = recorded.result
        claim, outcome = result.claim, result.outcome
        duration_ms = result.attempt_duration_ms
        if duration_ms is not None:
            yield "calls", duration_ms, outcome.outcome_class.value
        if not recorded.held:
            yield "claims_lost", 1
            continue
        state = result.job_verdict.state
        error_code = sanitize(outcome.error_code or "", _MAX_LABEL_CHARACTERS)
        yield "outcomes", 1, state.value, error_code
        # Only once per job: not if the job returns to its lane, and not after an earlier attempt.
        since = claim.sendable_from_ms
        if (
            duration_ms is not None
            and since is not None
            and state is not State.QUEUED
            and not claim.attempts
        ):
            yield "waits", max(0, claim.claimed_at_ms - since)


class MetricTotals(Collector):
    """The metrics of a worker. Thread-safe."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._outcomes = Counter(
            "harasocial_outcomes",
            "Recorded outcomes, by resulting state and error code.",
            ["state", "error_code"],
            registry=registry,
        )
        self._calls = Histogram(
            "harasocial_call_duration_seconds",
            "POSTs to the API, by outcome class.",
            ["outcome"],
            buckets=CALL_BOUNDS,
            registry=registry,
        )
        self._waits = Histogram(
            "harasocial_queue_wait_seconds",
            "Time from the earliest time to send a job to the claim for its first attempt.",
            buckets=WAIT_BOUNDS,
            registry=registry,
        )
        self._plain = {
            name: Counter(f"harasocial_{name}", help_text, registry=registry)
            for name, help_text in _PLAIN_COUNTERS.items()
        }
        # Cache the result of the library's `labels()`, which is slower than counting. There are few
        # labels.
        self._outcome = cache(self._outcomes.labels)
        self._call = cache(self._calls.labels)
        self._lock = threading.Lock()
        self._error_codes: set[str] = set()
        # Create these series with 0. Prometheus does not see an increase if a series starts at 1.
        for state, code in (
            (State.SENT, ""),
            (State.FAILED, "expired"),
            (State.FAILED, "unknown_outcome"),
            (State.RETRYING, "unknown_outcome"),
            *((State.QUEUED, code) for code in ABUSE_WARNINGS),
        ):
            self._outcomes.labels(state.value, self._bounded(code))
        self._calls.labels(OutcomeClass.ACCEPTED.value)

    def add(self, observations: Iterable[Observation]) -> None:
        """Add observations."""
        for metric, value, *labels in observations:
            if metric == "outcomes":
                state, code = labels
                self._outcome(state, self._bounded(str(code))).inc(int(value))
            elif metric == "calls":
                self._call(*labels).observe(int(value) / 1000)
            elif metric == "waits":
                self._waits.observe(int(value) / 1000)
            else:
                self._plain[str(metric)].inc(int(value))

    def _bounded(self, code: str) -> str:
        with self._lock:
            if code not in self._error_codes:
                if len(self._error_codes) >= MAX_ERROR_CODES:
                    return _OTHER
                self._error_codes.add(code)
        return code

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that names are not checked at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, without the library's `_created` series."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
