"""The path of a message: enqueued by a web app, sent by a real worker, received by the API."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings, State, parse_new_job
from support.harness import StartWorker, body, eventually, wait_until_ended


def test_the_documented_request_goes_over_the_wire_to_the_letter(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Method, path, headers and JSON body are those of the example in the API's documentation."""
    # given the message of the API page's example
    start_worker()
    job = {
        "messaging_type": "harasocial_facebook_payload_id",
        "recipient": {"id": "2560816460648749"},
        "message": {
            "payload_id": "__hrf_f_63072efd8d1cc15d16c3848e_s_4d12c525111725943cdbf556bd57687d"
        },
        "page_id": "500725830264749",
        "metadata": "Custom string that is delivered as a message echo",
    }

    # when it is enqueued
    job_id = producer.enqueue(job)

    # then exactly one request arrives, and it is the documented one
    (record,) = wait_until_ended(producer, [job_id])
    (request,) = sandbox.requests()
    assert request.method == "POST"
    assert request.path == "/social/messages.json"
    headers = dict(request.headers)
    assert headers["accept"] == "text/plain"
    assert headers["Authorization"] == f"Bearer {DEFAULT_TOKEN}"
    assert headers["Content-Type"] == "application/json-patch+json"
    # … with no other headers, except those of HTTP and the user agent.
    others = set(headers) - {"accept", "Authorization", "Content-Type"}
    assert others == {"Host", "Content-Length", "User-Agent", "Accept-Encoding"}
    assert headers["User-Agent"].startswith("harasocial-dispatch/")
    assert json.loads(request.body) == job
    assert list(json.loads(request.body)) == list(job)
    assert record.state is State.SENT
    assert (record.error_code, record.http_status, record.attempt_count) == (None, 200, 1)


def test_vietnamese_metadata_arrives_as_it_was_given(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Text of maximum length with non-ASCII characters arrives unchanged."""
    start_worker()
    metadata = ("Đơn hàng 1001 đã thanh toán 🎉 " * 20)[:500]

    job_id = producer.enqueue(body(metadata=metadata))

    wait_until_ended(producer, [job_id])
    (request,) = sandbox.requests()
    assert json.loads(request.body)["metadata"] == metadata


def test_an_attentive_worker_is_woken_without_celery(
    producer: Producer, settings: Settings, start_worker: StartWorker
) -> None:
    """For some seconds after its last job, the ledger wakes the pump without a doorbell."""
    start_worker()

    def is_sent_unrung() -> bool:
        # given a worker that has just sent a job
        wait_until_ended(producer, [producer.enqueue(body())])
        # when a job is enqueued whose doorbell reaches no worker
        rung: list[None] = []
        ledger = Ledger(settings, ring=lambda: rung.append(None))
        (job_id,) = ledger.enqueue([parse_new_job(body(), {})]).job_ids
        ledger.close()
        # then it is sent, and no doorbell was needed
        wait_until_ended(producer, [job_id])
        return not rung

    # On a slow machine, the pump may have ended before the second job.
    assert any(is_sent_unrung() for _ in range(10))


#: payload id → (state, error_code, POSTs, attempts spent), with at most 3 attempts.
OUTCOMES = {
    "__hrf_f_1": ("sent", None, 1, 1),
    # permanent: never a second POST (design promise 5)
    "sandbox:code:10/2018278": ("failed", "10/2018278", 1, 1),
    "sandbox:code:551:400": ("failed", "551", 1, 1),
    "sandbox:numeric_code:100": ("failed", "100", 1, 1),
    "sandbox:code:whatever": ("failed", "whatever", 1, 1),
    "sandbox:status:400": ("failed", "http_400", 1, 1),
    "sandbox:status:404": ("failed", "http_404", 1, 1),
    "sandbox:redirect": ("failed", "redirected", 1, 1),
    "sandbox:unsuccessful": ("failed", "not_accepted", 1, 1),
    "sandbox:no_success": ("failed", "not_accepted", 1, 1),
    "sandbox:code:1/1357046": ("failed", "1/1357046", 1, 1),
    # transient
    "sandbox:flaky:2": ("sent", None, 3, 3),
    "sandbox:status:503": ("failed", "http_503", 3, 3),
    "sandbox:code:1200": ("failed", "1200", 3, 3),
    # ambiguous, at least once
    "sandbox:flaky_drop:1": ("sent", None, 2, 2),
    "sandbox:drop": ("failed", "connection_lost", 3, 3),
    "sandbox:reset": ("failed", "connection_lost", 3, 3),
    "sandbox:hang": ("failed", "timeout", 3, 3),
    "sandbox:drip:0.2": ("failed", "timeout", 3, 3),
    "sandbox:slow_headers:0.2": ("failed", "timeout", 3, 3),
    "sandbox:garbage": ("failed", "invalid_response", 3, 3),
    "sandbox:huge": ("failed", "invalid_response", 3, 3),
    "sandbox:duplicate_keys": ("failed", "invalid_response", 3, 3),
    # throttled: as many POSTs as necessary, and no attempt is spent (design promise 7)
    "sandbox:throttle_first:4:0.05": ("sent", None, 5, 1),
}


def test_every_outcome_class_ends_as_in_the_table(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Each kind of reply once, from enqueuing to the record and the number of POSTs."""
    # given a worker with three attempts per job, and one page for each kind, so that a page that
    # fails and is paused does not delay the others
    start_worker(MAX_ATTEMPTS=3, CALL_DEADLINE_SECONDS=8)
    pages = {payload: str(1000 + i) for i, payload in enumerate(OUTCOMES)}

    # when a message of each kind is enqueued
    ids = [producer.enqueue(body(payload, page_id=page)) for payload, page in pages.items()]

    # then each ends as the table says
    records = dict(zip(OUTCOMES, wait_until_ended(producer, ids), strict=True))
    posts = {job.payload_id: job.posts for job in sandbox.jobs()}
    ended = {
        payload: (r.state.value, r.error_code, posts[payload], r.attempt_count)
        for payload, r in records.items()
    }
    assert ended == OUTCOMES
    # … with an attempt in the record for each spent attempt
    for payload, record in records.items():
        assert len(record.attempts) == record.attempt_count, payload
    assert sandbox.totals().redirected == 0, "the token travelled"


def test_at_most_once_is_never_posted_again_once_it_may_have_gone_out(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 4: after an unknown outcome, the job fails; after a temporary refusal, it retries."""
    start_worker(CALL_DEADLINE_SECONDS=4)
    kinds = {
        "sandbox:drop": ("failed", 1),
        "sandbox:hang": ("failed", 1),
        "sandbox:garbage": ("failed", 1),
        "sandbox:status:500": ("failed", 1),
        "sandbox:status:504": ("failed", 1),
        "sandbox:flaky:1:503": ("sent", 2),
    }

    ids = [
        producer.enqueue(body(payload, page_id=str(2000 + i)), delivery="at_most_once")
        for i, payload in enumerate(kinds)
    ]

    records = wait_until_ended(producer, ids)
    posts = {job.payload_id: job.posts for job in sandbox.jobs()}
    ended = {p: (r.state.value, posts[p]) for p, r in zip(kinds, records, strict=True)}
    assert ended == kinds


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_it_sends_under_each_of_celerys_pools(
    pool: str, producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Prefork is the default; threads and solo also work, and also finish their calls."""
    worker = start_worker("--pool", pool, "--concurrency", "2")

    ids = producer.enqueue_many(body(metadata=f"order {i}") for i in range(200)).accepted

    assert {record.state for record in wait_until_ended(producer, ids)} == {State.SENT}
    assert sandbox.totals().posts == 200
    assert worker.terminate() == 0


def test_a_job_for_later_waits_and_an_expired_one_is_not_sent(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """`send_at` and `expires_at` use the clock of Redis."""
    now = datetime.now(timezone.utc)
    later = producer.enqueue(body(metadata="later"), send_at=now + timedelta(seconds=2))
    expired = producer.enqueue(body(metadata="expired"), expires_at=now - timedelta(seconds=1))
    assert producer.get_job(later).state is State.SCHEDULED

    start_worker()

    sent, failed = wait_until_ended(producer, [later, expired])
    assert sent.state is State.SENT
    assert sent.attempts[0].at >= now + timedelta(seconds=2)
    assert (failed.state, failed.error_code) == (State.FAILED, "expired")
    assert [job.metadata for job in sandbox.jobs()] == ["later"]


def test_a_failed_job_is_found_replayed_and_sent(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 12, as an operator: find by error_code, fix the cause, replay."""
    start_worker(MAX_ATTEMPTS=1)
    sandbox.fail_with(503)
    job_id = producer.enqueue(body())
    wait_until_ended(producer, [job_id])

    (found,) = producer.find_jobs(error_code="http_503")
    sandbox.fail_with(None)
    replayed = producer.replay(found.job_id)

    assert replayed
    (record,) = wait_until_ended(producer, [job_id])
    assert record.state is State.SENT
    assert [attempt.error_code for attempt in record.attempts] == ["http_503", None]
    assert producer.replay(job_id) is False, "a sent job is never sent again"


def test_a_canceled_job_is_not_sent(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """A canceled queued job is not sent; the others of its lane are."""
    first, canceled, last = producer.enqueue_many(
        [body(metadata="first"), body(metadata="called off"), body(metadata="last")]
    ).accepted
    assert producer.cancel(canceled)

    start_worker()

    wait_until_ended(producer, [first, last])
    assert {job.metadata for job in sandbox.jobs()} == {"first", "last"}
    assert producer.get_job(canceled).state is State.CANCELLED
    assert producer.cancel(first) is False


def test_urgent_jobs_of_a_page_go_first(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """An urgent job overtakes its page's queue."""
    ids = [producer.enqueue(body(metadata=f"{i}")) for i in range(20)]
    ids.append(producer.enqueue(body(metadata="urgent"), urgent=True))

    start_worker("--concurrency", "1", IN_FLIGHT=1)

    wait_until_ended(producer, ids)
    assert json.loads(sandbox.requests()[0].body)["metadata"] == "urgent"


def test_a_warm_shutdown_finishes_the_calls_in_flight_and_loses_nothing(
    producer: Producer, sandbox: Sandbox, ledger: Ledger, start_worker: StartWorker
) -> None:
    """SIGTERM: no call is interrupted, no claim stays; the next worker sends the rest."""
    # given a worker in the middle of slow calls
    sandbox.latency_seconds = 0.5
    first = start_worker()
    ids = producer.enqueue_many(body(metadata=f"{i}") for i in range(500)).accepted
    eventually(lambda: sandbox.totals().posts > 20, what="some calls in flight")

    # when it is asked to stop
    began = time.monotonic()
    assert first.terminate() == 0

    # then it stops within the time of a call, and each job is either sent or unchanged
    assert time.monotonic() - began < 5
    states = ledger.reader.count_states()
    assert states[State.SENDING] == 0
    assert states[State.SENT] + states[State.QUEUED] == 500
    assert states[State.SENT] == sandbox.totals().posts

    # and the next worker sends the rest, nothing twice
    sandbox.latency_seconds = 0
    start_worker()
    wait_until_ended(producer, ids)
    assert sandbox.totals().posts == 500
    assert all(job.posts == 1 for job in sandbox.jobs())
