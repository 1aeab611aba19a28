"""The test kit keeps the jobs of an application, and ends them like a worker."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine
from harasocial_dispatch import producer as host
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.producer.aio import AsyncProducer
from harasocial_dispatch.sandbox import BEHAVIORS, EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import JobRecord, Settings, State
from harasocial_dispatch.testing import TestKit
from support.caller import Caller
from support.harness import body, present

ANN, BOB = "2560816460648749", "2560816460648750"


def ending(job: JobRecord) -> tuple[str, str | None, int]:
    """Return a job's state, error code and number of attempts."""
    return str(job.state), job.error_code, job.attempt_count


@pytest.fixture(params=["memory", "valkey"])
def kit(request: pytest.FixtureRequest, valkey: EmbeddedValkey) -> Iterator[TestKit]:
    """A test kit on each kind of server."""
    with TestKit(valkey.url if request.param == "valkey" else None) as running:
        yield running


def test_every_producer_uses_the_kit_until_it_ends(producer: Producer) -> None:
    """An earlier producer and a bound method use it too. After the end, they work as before."""
    enqueue = producer.enqueue
    before = enqueue(body(), idempotency_key="order-1")

    with TestKit() as kit:
        assert kit.enqueued() == []
        ids = [
            enqueue(body(), idempotency_key="order-1"),
            Producer().enqueue(body(metadata="2")),
            host.enqueue(body(metadata="3")),
            kit.producer.enqueue(body(metadata="4")),
            asyncio.run(AsyncProducer().enqueue(body(metadata="5"))),
        ]
        assert [job.job_id for job in kit.enqueued()] == ids
        assert before not in ids

    assert [job.job_id for job in producer.find_jobs()] == [before]
    assert enqueue(body(), idempotency_key="order-1") == before


def test_matching_jobs_are_returned_and_others_are_listed(kit: TestKit) -> None:
    """The message of a failed assertion lists each job and the values that differ."""
    kit.assert_enqueued(count=0)
    ids = [
        host.enqueue(body("one", recipient_id=ANN, metadata="x"), idempotency_key="k"),
        host.enqueue(body("two", recipient_id=ANN)),
        host.enqueue(body("two", recipient_id=BOB, page_id="7"), campaign="tet"),
    ]

    def found(**wanted: Any) -> list[str]:
        return [job.job_id for job in kit.assert_enqueued(**wanted)]

    assert found() == ids
    assert found(recipient_id=ANN) == ids[:2]
    assert found(page_id="7", payload_id="two", count=1) == found(campaign="tet") == ids[2:]
    assert found(metadata="x") == found(idempotency_key="k") == ids[:1]
    assert found(payload_id="three", count=0) == []

    with pytest.raises(AssertionError) as refused:
        kit.assert_enqueued(recipient_id=BOB, payload_id="one")
    assert str(refused.value).splitlines() == [
        f"expected at least 1 message with recipient_id='{BOB}', payload_id='one'; "
        "0 of 3 messages enqueued match",
        f"  page_id='500725830264749', recipient_id='{ANN}', payload_id='one', metadata='x', "
        "idempotency_key='k' (queued)   <- differs in recipient_id",
        f"  page_id='500725830264749', recipient_id='{ANN}', payload_id='two' (queued)   "
        "<- differs in recipient_id, payload_id",
        f"  page_id='7', recipient_id='{BOB}', payload_id='two', "
        f"idempotency_key='tet/7/{BOB}/two', campaign='tet' (queued)   <- differs in payload_id",
    ]
    for wanted in ({"payload_id": "two", "count": 1}, {"count": 0}, {"metadata": "y"}):
        with pytest.raises(AssertionError, match=r"^expected .* of 3 messages enqueued match\n"):
            kit.assert_enqueued(**wanted)


def test_a_long_list_is_shortened(kit: TestKit) -> None:
    """Only the latest jobs are listed."""
    host.enqueue_many(body(metadata=f"order {number}") for number in range(25))

    with pytest.raises(AssertionError) as refused:
        kit.assert_enqueued(metadata="order 25")
    first, rest, *listed = str(refused.value).splitlines()
    assert "0 of 25 messages" in first
    assert rest == "  … 5 earlier ones"
    assert len(listed) == 20
    assert "'order 5'" in listed[0]


@pytest.mark.parametrize(
    ("payload_id", "expected"),
    [
        ("__hrf_f_1", ("sent", None, 1)),
        ("sandbox:code:551", ("failed", "551", 1)),
        ("sandbox:flaky:2", ("sent", None, 3)),
        ("sandbox:throttle_first:2:1800", ("sent", None, 1)),
        ("sandbox:status:503", ("failed", "http_503", 12)),
        ("sandbox:hang", ("failed", "timeout", 12)),
        ("sandbox:drop", ("failed", "connection_lost", 12)),
        ("sandbox:no_such", ("failed", "invalid_request", 1)),
    ],
)
def test_a_job_ends_as_with_a_worker(
    payload_id: str, expected: tuple[str, str | None, int]
) -> None:
    """Retries and pauses follow the worker's rules and take no time."""
    with TestKit() as kit:
        host.enqueue(body(payload_id))
        (job,) = kit.drain()

    assert ending(job) == expected


def test_a_planned_reply_is_for_the_next_matching_message(kit: TestKit) -> None:
    """Planned replies are used in order, each for the given number of messages."""
    kit.reply_next("code:551", recipient_id=BOB)
    kit.reply_next("code:100", times=2)
    ids = [host.enqueue(body(recipient_id=who)) for who in (ANN, BOB, BOB, ANN)]

    outcomes = kit.drain()
    assert [job.job_id for job in outcomes] == ids
    assert [job.error_code for job in outcomes] == ["100", "551", "100", None]
    assert [job.job["recipient"]["id"] for job in outcomes] == [ANN, BOB, BOB, ANN]
    assert kit.sandbox.totals().posts == 4
    assert kit.drain() == []

    with pytest.raises(ValueError, match="no behavior 'nonsense'"):
        kit.reply_next("nonsense")
    with pytest.raises(ValueError, match="at least 1"):
        kit.reply_next("code:551", times=0)


def test_time_passes_only_during_a_drain() -> None:
    """A scheduled job is sent if it is due within the given time. Then the clock is set back."""
    send_at = datetime.now(timezone.utc) + timedelta(hours=2)
    with TestKit() as kit:
        later = host.enqueue(body(), send_at=send_at)
        too_late = host.enqueue(body(), send_at=send_at + timedelta(days=2))
        now = host.enqueue(body())

        assert [job.state for job in kit.drain(within=timedelta(hours=1))] == [
            State.SCHEDULED,
            State.SCHEDULED,
            State.SENT,
        ]
        assert present(host.get_job(now).finished_at) < send_at
        states = {job.job_id: job.state for job in kit.drain()}
        assert states == {later: State.SENT, too_late: State.SCHEDULED}
        assert present(host.get_job(later).finished_at) >= send_at
        assert present(host.get_job(host.enqueue(body())).enqueued_at) < send_at


def test_a_pause_of_a_page_does_not_affect_other_pages() -> None:
    """A refused token fails one job and pauses only its page."""
    with TestKit() as kit:
        kit.reply_next("code:190", page_id="1")
        ids = [host.enqueue(body(page_id=page_id)) for page_id in "112"]

        states = [ending(job) for job in kit.drain(within=timedelta(0))]
        assert states[0] == ("failed", "190", 1)
        assert states[2] == ("sent", None, 1)
        assert {job.job_id: str(job.state) for job in kit.drain()} in ({ids[1]: "sent"}, {})
        assert host.get_job(ids[1]).state is State.SENT


def test_a_page_paused_by_hand_waits_until_it_is_resumed(kit: TestKit) -> None:
    """A drain does not send its jobs. Another page has its own rate."""
    kit.producer.pause_page("1", reason="test")
    kit.producer.set_rate("2", 5, burst=1)
    for page_id in "122":
        host.enqueue(body(page_id=page_id))

    assert [str(job.state) for job in kit.drain()] == ["queued", "sent", "sent"]
    kit.producer.resume_page("1")
    assert [str(job.state) for job in kit.drain()] == ["sent"]


def test_a_held_campaign_waits_until_it_is_released(kit: TestKit) -> None:
    """A drain does not send its jobs."""
    for campaign in ("held", "other"):
        host.enqueue(body(), campaign=campaign)
    kit.producer.hold_campaign("held", reason="test")

    assert [str(job.state) for job in kit.drain()] == ["queued", "sent"]
    kit.producer.release_campaign("held")
    assert [str(job.state) for job in kit.drain()] == ["sent"]


def test_settings_apply_to_the_worker() -> None:
    """The given settings change how jobs end."""
    with TestKit(max_attempts=2) as kit:
        host.enqueue(body("sandbox:status:503"))
        assert [ending(job) for job in kit.drain()] == [("failed", "http_503", 2)]


def test_the_kit_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a real server, the kit works even if no socket can be created."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setenv("HARASOCIAL_TOKEN_FILE", "/run/secrets/token")
    monkeypatch.setenv("HARASOCIAL_API_URL", "https://apis.harasocial.com/social/messages.json")
    monkeypatch.setattr(socket, "socket", refuse)
    with TestKit() as kit:
        host.enqueue(body())
        assert [job.state for job in kit.drain()] == [State.SENT]
        settings = Settings.from_environment()
        assert (settings.api_url, settings.token) == (kit.settings.api_url, "sandbox-token")
        assert settings.api_url.startswith("http://127.0.0.1:9/")
    assert os.environ["HARASOCIAL_TOKEN_FILE"] == "/run/secrets/token"


def test_a_frozen_clock_does_not_block_a_drain() -> None:
    """Tests with frozen time can drain, and jobs have the frozen time."""
    start = datetime(2026, 1, 31, 9, 30, tzinfo=timezone.utc)
    with time_machine.travel(start, tick=False), TestKit() as kit:
        host.enqueue(body("sandbox:flaky:1"))
        (job,) = kit.drain()

        assert job.enqueued_at == start
        assert job.state is State.SENT
        # The first retry waits at most 2 seconds.
        assert [attempt.at - start for attempt in job.attempts] == [
            timedelta(0),
            timedelta(seconds=1),
        ]


def test_a_process_that_the_test_starts_can_use_the_real_server(valkey: EmbeddedValkey) -> None:
    """The environment of the process refers to the same jobs."""
    with TestKit(valkey.url) as kit:
        settings = Settings.from_environment()
        assert (settings.redis_url, settings.namespace) == (valkey.url, kit.settings.namespace)


#: Behavior → its arguments.
_ARGUMENTS = {
    "code": ":10/2018278",
    "numeric_code": ":551",
    "status": ":502",
    "throttle_first": ":1:2",
    "flaky": ":1",
    "flaky_drop": ":1",
    "slow": ":0.1",
    "slow_headers": ":0.001",
    "drip": ":0.001",
}


@pytest.mark.parametrize("behavior", BEHAVIORS)
def test_a_call_ends_as_with_a_network(behavior: str, sandbox: Sandbox) -> None:
    """For every reply, the kit's call and a worker's call have the same outcome."""
    payload_id = f"sandbox:{behavior}{_ARGUMENTS.get(behavior, '')}"
    with Caller(sandbox.url, deadline_seconds=1.0) as caller:
        real = caller.send(payload_id).outcome

    with TestKit(max_attempts=1) as kit:
        host.enqueue(body(payload_id))
        (job,) = kit.drain(within=timedelta(0))
    if behavior in ("throttle", "throttle_first"):
        assert (job.state, job.error_code) == (State.QUEUED, real.error_code)
    else:
        assert (job.error_code, job.http_status) == (real.error_code, real.http_status)
        assert (job.state is State.SENT) == (real.error_code is None)
