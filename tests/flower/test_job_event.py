"""The events in Flower: its own state and search process them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from celery.events.state import State as CeleryState
from celery.events.state import Task
from flower.utils.search import TaskSearchEngine
from harasocial_dispatch.schemas import Attempt, State, from_ms
from harasocial_dispatch.worker.observe.job_event import SEND_TASK, JobEvent, events_of
from support.harness import present

JOB_ID = "1f0c3d1eff5fd4e6a8ce0b8dbd3ce6cc"
BODY = {
    "recipient": {"id": "2560816460648749"},
    "message": {"payload_id": "__hrf_f_63072efd"},
    "page_id": "500725830264749",
}
ATTEMPT = Attempt(
    at=from_ms(1_769_850_000_250),
    duration_ms=120,
    http_status=503,
    error_code="http_503",
    error_message="try later",
)
JOB_EVENT = JobEvent(
    job_id=JOB_ID,
    state=State.FAILED,
    at_seconds=time.time(),
    body=BODY,
    error_code="10/2018278",
    error_message="outside of the allowed window",
    attempts=(ATTEMPT, replace(ATTEMPT, http_status=200, error_code="10/2018278")),
    duration_seconds=0.12,
    dispatch_id="d-1",
)


class Watcher:
    """Flower's memory of tasks, and its search over them."""

    def __init__(self) -> None:
        self.state: Any = CeleryState()  # celery-types lacks its tasks
        self.engine = TaskSearchEngine()

    def receive(self, job_event: JobEvent) -> Task:
        for kind, fields in events_of(job_event):
            self.state.event(
                {
                    "type": kind,
                    "hostname": "w@1",
                    "clock": 1,
                    "local_received": time.time(),
                    **fields,
                }
            )
            self.engine.upsert(self.state.tasks[job_event.job_id])
        task: Task = self.state.tasks[job_event.job_id]
        return task

    def finds(self, query: str) -> bool:
        return JOB_ID in self.engine.search(self.state.tasks, query).task_ids


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def test_a_failure_is_a_task_that_failed(watcher: Watcher) -> None:
    """The UUID is the job's id. Exception and result begin with the error code."""
    task = watcher.receive(JOB_EVENT)
    assert (task.name, task.state, task.uuid) == (SEND_TASK, "FAILURE", JOB_ID)
    assert present(task.exception).startswith("10/2018278: outside")
    assert task.result.startswith("10/2018278: outside")
    assert (task.parent_id, task.root_id) == ("d-1", "d-1")
    assert task.retries == 1
    assert task.runtime == 0.12


def test_the_traceback_lists_the_attempts(watcher: Watcher) -> None:
    """Each attempt has one line with time, status, duration and error."""
    lines = present(watcher.receive(JOB_EVENT).traceback).splitlines()
    assert lines[0] == "2026-01-31T09:00:00.250Z  HTTP 503 after 120 ms  http_503: try later"
    assert len(lines) == 2


@pytest.mark.parametrize(
    "query",
    [
        "result:2018278",
        "result:10/2018278",
        "2018278",
        "kwargs:error_code=10/2018278",
        "args:500725830264749",
        "kwargs:page_id=500725830264749 AND state:FAILURE",
        "__hrf_f_63072efd",
        JOB_ID,
    ],
)
def test_flowers_search_finds_it(watcher: Watcher, query: str) -> None:
    """The search finds code, page, payload and id."""
    watcher.receive(JOB_EVENT)
    assert watcher.finds(query)


@pytest.mark.parametrize(
    "query", ["result:551", "kwargs:error_code=10", "state:RETRY", "2560816460648749"]
)
def test_flowers_search_does_not_find_other_values(watcher: Watcher, query: str) -> None:
    """The search does not find the recipient's complete id, which is not in the event."""
    watcher.receive(JOB_EVENT)
    assert not watcher.finds(query)


def test_only_the_last_digits_of_the_recipient_are_sent(watcher: Watcher) -> None:
    """No event has the complete id."""
    assert "recipient_id=************8749" in present(watcher.receive(JOB_EVENT).args)
    assert "2560816460648749" not in repr(events_of(JOB_EVENT))


def test_a_retry_waits_until_it_is_due_and_then_succeeds(watcher: Watcher) -> None:
    """The state is RETRY with its time, then SUCCESS with only the attempts of the failure."""
    due = JOB_EVENT.at_seconds + 60
    task = watcher.receive(replace(JOB_EVENT, state=State.RETRYING, retry_at_seconds=due))
    assert task.state == "RETRY"
    assert task.eta is not None
    assert watcher.finds("state:RETRY AND result:2018278")
    task = watcher.receive(
        replace(JOB_EVENT, state=State.SENT, error_code=None, error_message=None)
    )
    assert (task.state, task.result, task.exception, task.eta) == ("SUCCESS", "sent", None, None)
    assert len(present(task.traceback).splitlines()) == 2
    assert not watcher.finds("result:2018278")


def test_a_replayed_failure_becomes_a_success(watcher: Watcher) -> None:
    """Otherwise, Flower would list it as a failure forever."""
    watcher.receive(JOB_EVENT)
    assert watcher.receive(replace(JOB_EVENT, state=State.SENT, error_code=None)).state == "SUCCESS"


def test_flowers_count_of_running_tasks_returns_to_zero() -> None:
    """Flower counts received minus ended tasks. Every attempt sends both events."""
    for state in (State.FAILED, State.RETRYING, State.SENT):
        received, started, ended = events_of(replace(JOB_EVENT, state=state))
        assert (received[0], started[0]) == ("task-received", "task-started")
        assert ended[0] in ("task-failed", "task-retried", "task-succeeded")


@pytest.mark.parametrize("state", [State.QUEUED, State.SENDING, State.SCHEDULED, State.CANCELLED])
def test_a_job_without_an_ended_attempt_has_no_event(state: State) -> None:
    """No later event would end the task."""
    assert events_of(replace(JOB_EVENT, state=state)) == []


def test_a_long_call_does_not_cause_a_clock_warning() -> None:
    """Celery warns if clocks differ by 16 seconds, and a long call starts earlier than that."""
    job_event = replace(JOB_EVENT, duration_seconds=300.0)
    received, _, ended = events_of(job_event)
    assert job_event.at_seconds - received[1]["timestamp"] < 16
    assert ended[1]["runtime"] == 300.0


@pytest.mark.parametrize(
    "body", [{}, {"recipient": None, "message": 1}, {"recipient": {"id": ["x"]}, "page_id": {}}]
)
def test_invalid_values_of_another_client_are_accepted(body: dict[str, Any]) -> None:
    """Invalid values of any length are accepted, without control characters."""
    job_event = replace(JOB_EVENT, body={**body, "page_id": "\x1b[31m" + "9" * 5000})
    text = repr(events_of(job_event))
    assert "\\x1b" not in text
    assert len(text) < 5000
