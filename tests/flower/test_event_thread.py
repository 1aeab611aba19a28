"""Job events never wait for the broker: they are sent in groups, or dropped and counted."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import (
    Attempt,
    Settings,
    State,
    from_ms,
)
from harasocial_dispatch.worker.observe import event_sender
from harasocial_dispatch.worker.observe import events as events_module
from harasocial_dispatch.worker.observe.events import JobEvents
from harasocial_dispatch.worker.observe.recorded import Recorded
from support.harness import eventually, present
from support.results import make_claim, make_result


def done(number: int, state: State = State.FAILED, *, held: bool = True, **claim: Any) -> Recorded:
    """Return a recorded result as the pump passes it."""
    result = make_result(
        make_claim(job_id=f"job-{number}", claimed_at_ms=1_769_850_000_000, **claim),
        state,
        None if state is State.SENT else "551",
        http_status=200,
        duration_ms=12,
    )
    return Recorded(result=result, held=held)


class Listener:
    """Receives the messages that are published to Flower."""

    def __init__(self, url: str) -> None:
        client: Any = redis.Redis.from_url(url, decode_responses=True)
        self._client = client
        self._pubsub = client.pubsub()
        self._pubsub.psubscribe("/0.celeryev*")
        confirmed = present(self._pubsub.get_message(timeout=10))
        assert confirmed["type"] == "psubscribe"
        self.groups: list[list[dict[str, Any]]] = []

    def events(self) -> list[dict[str, Any]]:
        """Return all events so far."""
        while message := self._pubsub.get_message(timeout=0):
            envelope = json.loads(message["data"])
            self.groups.append(json.loads(base64.b64decode(envelope["body"])))
        return [event for group in self.groups for event in group]

    def ended(self) -> list[tuple[str, str]]:
        """Return the event type of each job's end, in order."""
        kinds = ("task-failed", "task-retried", "task-succeeded")
        return [(e["uuid"], e["type"]) for e in self.events() if e["type"] in kinds]


@pytest.fixture
def broker() -> Iterator[EmbeddedValkey]:
    """Return a separate broker that the test can halt and kill."""
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture
def listener(broker: EmbeddedValkey) -> Listener:
    return Listener(broker.url)


@pytest.fixture
def events(broker: EmbeddedValkey) -> Iterator[JobEvents]:
    made = JobEvents(
        Celery(broker=broker.url, set_as_current=False), Settings(redis_url=broker.url)
    )
    made.hostname = "celery@here"
    yield made
    made.stop()


def test_failures_and_retries_have_events_and_successes_do_not(
    events: JobEvents, listener: Listener
) -> None:
    """A job that waited for a retry, or was replayed, has an event when it is sent."""
    before = Attempt(at=from_ms(0), error_code="timeout")
    events.observe(
        [
            done(1),
            done(2, State.RETRYING),
            done(3, State.SENT),
            done(4, State.SENT, attempts=(before,)),
            done(5, State.SENT, replayed=True),
            done(6, State.QUEUED),
            done(7, held=False),
        ]
    )
    eventually(lambda: len(listener.ended()) >= 4, what="four events")
    assert listener.ended() == [
        ("job-1", "task-failed"),
        ("job-2", "task-retried"),
        ("job-4", "task-succeeded"),
        ("job-5", "task-succeeded"),
    ]
    assert {event["hostname"] for event in listener.events()} == {"celery@here"}


def test_events_of_successes_can_be_enabled(broker: EmbeddedValkey, listener: Listener) -> None:
    """With the setting, each sent message is a succeeded task."""
    events = JobEvents(
        Celery(broker=broker.url, set_as_current=False),
        Settings(redis_url=broker.url, flower_successes=True),
    )
    events.observe([done(1, State.SENT), done(2, State.QUEUED)])
    eventually(listener.ended, what="the event")
    events.stop()
    assert listener.ended() == [("job-1", "task-succeeded")]


def test_events_are_sent_in_groups(events: JobEvents, listener: Listener) -> None:
    """A hundred jobs are one message, not three hundred messages."""
    events.observe([done(number) for number in range(250)])
    eventually(lambda: len(listener.ended()) == 250, what="all events")
    assert len(listener.groups) <= 4
    assert events.dropped == 0


def test_buffered_events_are_sent_before_the_process_ends(
    events: JobEvents, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stop` returns after the last events are sent, so that a stopping worker loses none."""
    monkeypatch.setattr(
        events_module, "_FINAL_SEND_TIMEOUT_SECONDS", 30
    )  # tolerance for a busy machine
    events.observe([done(1)])
    events.stop()
    assert "events" not in {thread.name for thread in threading.enumerate()}
    eventually(listener.ended, what="the event")
    assert listener.ended() == [("job-1", "task-failed")]


@pytest.mark.parametrize("broken", ["halted", "killed"])
def test_an_unavailable_broker_blocks_no_caller(
    broker: EmbeddedValkey,
    events: JobEvents,
    broken: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Events that the broker does not accept are dropped and counted. Later events are sent."""
    # given a broker that hangs or is unreachable
    monkeypatch.setattr(events_module, "MAX_WAITING", 300)
    monkeypatch.setattr(event_sender, "_BROKER_TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(event_sender, "_PAUSE_AFTER_FAILURE_SECONDS", 0.3)
    if broken == "halted":
        broker.pause()
    else:
        broker.kill()

    # when more events occur than the buffer can hold
    batch = [done(number) for number in range(1000)]
    took_seconds = []
    for _ in range(5):
        began = time.monotonic()
        events.observe(batch)
        took_seconds.append(time.monotonic() - began)

    # then no call has waited for the broker, which takes 2 seconds
    assert max(took_seconds) < 1.5
    assert events.dropped >= 1000 - 300 - 100
    eventually(lambda: "job events for Flower cannot be sent" in caplog.text, what="a warning")

    # and when the broker is back, new events are sent
    if broken == "halted":
        broker.resume()
    else:
        broker.restart()
    listener = Listener(broker.url)

    def send_and_listen() -> bool:
        events.observe([done(2000)])
        return ("job-2000", "task-failed") in listener.ended()

    eventually(send_and_listen, what="events after the outage")
    eventually(lambda: "jobs were not sent to Flower" in caplog.text, what="the number lost")


def test_a_process_without_events_has_no_thread(events: JobEvents) -> None:
    """A message that is sent at the first attempt only costs a check of its state."""
    before = set(threading.enumerate())
    events.observe([done(1, State.SENT)])
    assert set(threading.enumerate()) <= before
