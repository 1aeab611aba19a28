"""An event of a job that arrives late does not change what Flower shows."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.flower.late_events import is_late
from harasocial_dispatch.schemas import Attempt, State, from_ms
from harasocial_dispatch.worker.observe.job_event import JobEvent, events_of
from support.flower_harness import FlowerHarness
from support.harness import eventually


def test_a_retry_that_arrives_after_the_success_is_ignored(harness: FlowerHarness) -> None:
    """Two processes made the attempts, and the first one sends its events last."""
    first = Attempt(at=from_ms(1_769_850_000_000), error_code="http_503")
    retried = JobEvent(
        job_id="4d12c525111725943cdbf556bd57687d",
        state=State.RETRYING,
        at_seconds=time.time(),
        body={"page_id": "1"},
        error_code="http_503",
        attempts=(first,),
    )
    sent = replace(
        retried,
        state=State.SENT,
        error_code=None,
        attempts=(first, replace(first, error_code=None)),
    )
    other = replace(retried, job_id="63072efd8d1cc15d16c3848e00000000")
    harness.flower.wait_for_subscription()

    with SeparateCelery("test", harness.settings).events.default_dispatcher("w@h") as dispatcher:
        for event in (sent, retried, other):
            for kind, fields in events_of(event):
                dispatcher.send(kind, **fields)

    def shown(event: JobEvent) -> dict[str, Any]:
        task: dict[str, Any] = harness.flower.get(f"/api/task/info/{event.job_id}").json()
        return task

    eventually(lambda: harness.flower.get(f"/api/task/info/{other.job_id}").ok, what="all events")
    eventually(lambda: shown(other)["state"] == "RETRY", what="the last event")
    assert (shown(sent)["state"], shown(sent)["result"]) == ("SUCCESS", "sent")


@pytest.mark.parametrize(
    "event",
    [{}, {"uuid": []}, {"uuid": "1"}, {"uuid": "1", "retries": "0"}, {"uuid": "2", "retries": 0}],
)
def test_other_events_are_not_late(event: dict[str, Any]) -> None:
    """Other tasks have no number of the attempt in each event, and another client any values."""
    assert not is_late(event, {"1": type("Task", (), {"retries": 1})})
