"""A worker with a wrong clock: leases, backoff and rates use only Redis's clock."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import WorkerProcess, body, environment, wait_until_ended

pytestmark = pytest.mark.needs("faketime")


@pytest.mark.parametrize("offset", ["+10m", "-10m"])
def test_a_clock_that_is_ten_minutes_off_has_no_effect(
    offset: str, producer: Producer, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Promises 4 and 5: nothing is sent early, late or twice, and recorded times are correct."""
    env = environment(settings, sandbox.url, RETRY_BASE_SECONDS=0.2, PAGE_RATE=50, PAGE_BURST=10)
    worker = WorkerProcess(env | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}, tmp_path)
    worker.start(prefix=("faketime", "-f", offset))
    try:
        now = datetime.now(timezone.utc)
        later = producer.enqueue(
            body(metadata="later", page_id="1"), send_at=now + timedelta(seconds=2)
        )
        flaky = producer.enqueue(body("sandbox:flaky:2", page_id="2"))
        until = (now + timedelta(seconds=3)).strftime("%a, %d %b %Y %H%%3A%M%%3A%S GMT")
        throttled = producer.enqueue(body(f"sandbox:throttle_first:1:{until}", page_id="3"))
        many = [producer.enqueue(body(metadata=f"{i}", page_id="4")) for i in range(60)]

        records = wait_until_ended(producer, [later, flaky, throttled, *many])
        assert {record.state for record in records} == {State.SENT}
        assert all(job.accepted == 1 for job in sandbox.jobs())
        due = (now + timedelta(seconds=2)).timestamp()
        # A busy machine delays all messages, also those that are due at once.
        others = max(time for job in sandbox.jobs(page_id="4") for time in job.arrived_at)
        (arrival,) = sandbox.jobs(page_id="1")[0].arrived_at
        assert arrival >= due
        assert arrival - max(due, others) < 4
        first, second = sandbox.jobs(page_id="3")[0].arrived_at
        assert second >= due, "before Retry-After"
        assert second - max(first, others) < 10, "a wrong clock made Retry-After's date far away"
        for record in records:
            assert record.finished_at is not None
            assert abs((record.finished_at - now).total_seconds()) < 60
            assert abs((record.attempts[-1].at - now).total_seconds()) < 60
    finally:
        worker.kill()


def test_a_worker_with_a_fast_clock_ends_no_lease_of_another(
    producer: Producer, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Promise 6: a sweep whose clock is an hour fast does not end the lease of a new claim."""
    sandbox.latency_seconds = 2
    env = environment(settings, sandbox.url)
    right = WorkerProcess(env, tmp_path).start()
    job_id = producer.enqueue(body())
    ahead = WorkerProcess(env | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}, tmp_path)
    ahead.start(prefix=("faketime", "-f", "+1h"))
    try:
        (record,) = wait_until_ended(producer, [job_id])
        assert (record.state, record.attempt_count) == (State.SENT, 1)
        assert sandbox.totals().posts == 1
        assert ahead.process.poll() is None
    finally:
        right.kill()
        ahead.kill()
