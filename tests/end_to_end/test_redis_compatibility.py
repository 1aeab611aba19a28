"""The ledger and the broker also work on redis-server. All other tests use Valkey.

Each test uses every ledger script that a worker, a producer or an operator calls on that path.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import redis
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import QueueUnavailable, Settings, State
from support.harness import StartWorker, body, eventually, unique_settings, wait_until_ended

pytestmark = pytest.mark.needs("redis-server")

DURABLE: dict[str, Any] = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(command=["redis-server"], **DURABLE) as made:
        yield made


@pytest.fixture
def settings(server: EmbeddedValkey) -> Settings:
    """Settings with which the fixtures `producer` and `start_worker` use redis-server."""
    return unique_settings(server.url)


def test_jobs_end_as_on_valkey(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Sent, failed after retries, throttled, scheduled, canceled, expired, found and replayed."""
    now = datetime.now(timezone.utc)
    canceled = producer.enqueue(body(metadata="canceled"))
    assert producer.cancel(canceled)
    expired = producer.enqueue(body(), expires_at=now - timedelta(seconds=1))
    scheduled = producer.enqueue(body(), send_at=now + timedelta(seconds=1))
    start_worker(MAX_ATTEMPTS=2)

    ids = producer.enqueue_many(
        [body(metadata="a"), body("sandbox:status:503"), body("sandbox:throttle_first:1:0.1")]
    ).accepted

    records = wait_until_ended(producer, [*ids, canceled, expired, scheduled])
    states = [record.state.value for record in records]
    assert states == ["sent", "failed", "sent", "cancelled", "failed", "sent"]
    assert producer.count_errors() == {"http_503": 1, "expired": 1}
    assert sandbox.totals().accepted == 3

    # when the failure is found and replayed
    (found,) = producer.find_jobs(error_code="http_503")
    assert found.job_id == ids[1]
    assert producer.replay(found.job_id)

    # then it is attempted again, and its record keeps all four attempts
    eventually(lambda: producer.get_job(ids[1]).attempt_count == 4, what="two more attempts")
    (again,) = wait_until_ended(producer, [ids[1]])
    assert (again.state, again.error_code) == (State.FAILED, "http_503")
    assert producer.replay(ids[0]) is False, "a sent job is never sent again"


def test_an_idempotency_key_makes_one_job(producer: Producer) -> None:
    first, second = (producer.enqueue(body(), idempotency_key="order-1") for _ in range(2))
    assert first == second
    assert producer.count_states()[State.QUEUED] == 1


def test_a_full_server_refuses_a_job_and_keeps_the_others(
    server: EmbeddedValkey, producer: Producer, start_worker: StartWorker
) -> None:
    """Without memory nothing is stored; with memory again, the stored jobs are sent."""
    waiting = producer.enqueue(body(metadata="waiting"))
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(QueueUnavailable):
                producer.enqueue(body(metadata="refused"))
        finally:
            client.config_set("maxmemory", 0)
    start_worker()
    (record,) = wait_until_ended(producer, [waiting])
    assert record.state is State.SENT
    assert producer.count_states()[State.SENT] == 1


def test_an_outcome_is_recorded_after_a_crash_of_the_server(
    server: EmbeddedValkey, producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """redis-server is killed during a call, and gets the outcome after its restart."""
    start_worker(LEASE_SECONDS=30, CALL_DEADLINE_SECONDS=5)
    sandbox.latency_seconds = 1.0
    job_id = producer.enqueue(body())
    eventually(lambda: sandbox.totals().posts == 1, what="the call")

    server.kill()
    eventually(lambda: sandbox.totals().accepted == 1, what="the reply")
    server.restart()

    (record,) = wait_until_ended(producer, [job_id])
    assert (record.state, record.attempt_count) == (State.SENT, 1)
    assert sandbox.totals().posts == 1
