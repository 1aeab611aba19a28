"""The events of a real worker: every unsuccessful job has an event in Flower."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, body, eventually, kill, wait_until_ended
from support.inspection import CeleryEvents


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Return a separate Valkey, because events of all namespaces share one broker."""
    with EmbeddedValkey() as valkey:
        yield Settings(redis_url=valkey.url)


@pytest.fixture
def events(settings: Settings) -> Iterator[CeleryEvents]:
    with CeleryEvents(settings) as listening:
        yield listening


def of(events: CeleryEvents, uuid: str) -> list[dict[str, Any]]:
    """Return the events of one task so far."""
    return [event for event in list(events.received) if event.get("uuid") == uuid]


def ends(events: CeleryEvents, uuid: str) -> list[dict[str, Any]]:
    """Return the events so far that ended its attempts, by the time of these ends.

    The processes of a worker send their events separately, so they arrive in any order.
    """
    kinds = ("task-failed", "task-retried", "task-succeeded")
    found = [event for event in of(events, uuid) if event["type"] in kinds]
    return sorted(found, key=lambda event: event["timestamp"])


def ended(events: CeleryEvents, uuid: str) -> dict[str, Any] | None:
    """Return the event that ended its latest attempt."""
    return next(reversed(ends(events, uuid)), None)


def test_jobs_are_children_of_their_dispatch(
    producer: Producer, start_worker: StartWorker, events: CeleryEvents
) -> None:
    """The dispatch succeeds with its counts. A message sent at the first attempt is not a task."""
    worker = start_worker()
    failed = producer.enqueue(body("sandbox:code:10/2018278"))
    sent = producer.enqueue(body("sandbox:ok"))
    wait_until_ended(producer, [failed, sent])
    event = eventually(lambda: ended(events, failed), what="the failure's event")
    assert event["type"] == "task-failed"
    assert event["result"].startswith("10/2018278: ")
    assert event["exception"].startswith("10/2018278: ")
    assert "HTTP 200 after" in event["traceback"]
    received = of(events, failed)[0]
    assert received["name"] == "harasocial.send"
    assert "@" in event["hostname"]
    dispatch_id = received["parent_id"]
    dispatch = eventually(lambda: ended(events, dispatch_id), what="the dispatch's event")
    assert dispatch["type"] == "task-succeeded"
    assert "'failed': 1" in dispatch["result"]
    assert dispatch["hostname"] == event["hostname"]
    assert of(events, sent) == []
    assert "recipient" not in worker.log()


def test_a_retry_and_its_success_have_events(
    producer: Producer, start_worker: StartWorker, events: CeleryEvents
) -> None:
    """The state is RETRY while the job waits, and SUCCESS after it was sent."""
    start_worker()
    job_id = producer.enqueue(body("sandbox:flaky:2"))
    wait_until_ended(producer, [job_id])
    eventually(lambda: len(ends(events, job_id)) >= 3, what="all events")
    attempts = [
        (event["type"], event["retries"], len(event["traceback"].splitlines()))
        for event in ends(events, job_id)
    ]
    assert attempts == [("task-retried", 0, 1), ("task-retried", 1, 2), ("task-succeeded", 2, 3)]


def test_a_job_that_expired_in_its_lane_has_an_event(
    producer: Producer, start_worker: StartWorker, events: CeleryEvents
) -> None:
    """The job had no attempt, because the ledger failed it at the claim."""
    job_id = producer.enqueue(body(), expires_at=datetime.now(timezone.utc) - timedelta(seconds=1))
    worker = start_worker()
    (record,) = wait_until_ended(producer, [job_id])
    assert record.error_code == "expired"
    event = eventually(lambda: ended(events, job_id), what="its event")
    assert event["result"].startswith("expired: ")
    assert of(events, job_id)[0]["parent_id"] is not None
    line = f"job {job_id} of page 500725830264749: failed (expired)"
    eventually(lambda: line in worker.log(), what="its line")


def test_a_job_whose_worker_died_has_an_event(
    producer: Producer, start_worker: StartWorker, events: CeleryEvents
) -> None:
    """The sweep of the remaining worker sends the event after the lease has expired."""
    worker = start_worker(LEASE_SECONDS=5, CALL_DEADLINE_SECONDS=4.8)
    job_id = producer.enqueue(body("sandbox:hang"), delivery="at_most_once")
    eventually(lambda: producer.get_job(job_id).state is State.SENDING, what="the claim")
    for child in worker.children():
        kill(child)
    event = eventually(lambda: ended(events, job_id), what="its event")
    assert (event["type"], event["result"].split(":")[0]) == ("task-failed", "unknown_outcome")
