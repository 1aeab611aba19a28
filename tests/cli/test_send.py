"""`send`: one message."""

from __future__ import annotations

import json
import threading
import time

import pytest
from harasocial_dispatch.schemas import State

PAGE, RECIPIENT = "500725830264749", "2560816460648749"
SEND = ("send", "--page-id", PAGE, "--recipient-id", RECIPIENT, "--payload-id", "p")


def test_without_a_terminal_the_job_id_alone_is_printed(run, jobs):
    """So that a script may keep it."""
    result = run(*SEND, "--metadata", "order 1001")
    job = jobs.producer.get_job(result.stdout.strip())
    assert result.exit_code == 0
    assert job.state is State.QUEUED
    assert job.job["recipient"] == {"id": RECIPIENT}
    assert job.job["metadata"] == "order 1001"


def test_every_option_reaches_the_job(run, jobs):
    """Times may be spans or dates."""
    result = run(
        *(*SEND, "--idempotency-key", "k-1", "--send-at", "2h", "--expires-at", "1d"),
        *("--at-most-once", "--urgent", "--json"),
    )
    record = jobs.producer.get_job(json.loads(result.stdout)["job_id"])
    assert record.state is State.SCHEDULED
    assert record.idempotency_key == "k-1"
    assert record.delivery.value == "at_most_once"
    assert (record.expires_at - record.send_at).total_seconds() == pytest.approx(22 * 3600, abs=5)


def test_one_idempotency_key_is_one_job(run, jobs):
    """The second call prints the id of the first one's job."""
    first, second = (run(*SEND, "--idempotency-key", "k").stdout for _ in range(2))
    assert first == second
    assert jobs.producer.count_states()[State.QUEUED] == 1


def test_a_job_that_breaks_the_contract_is_wrong_usage_with_a_line_a_field(run, jobs):
    """Nothing is enqueued then."""
    result = run(*SEND, "--recipient-id", "abc", "--metadata", "x" * 501)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: recipient.id: Must be a string of digits, nothing else.",
        "Error: metadata: Must have at most 500 characters; has 501.",
    ]
    assert jobs.producer.count_states()[State.QUEUED] == 0


def ends_when_enqueued(jobs, *end):
    """Let the next job end as a worker would, from a thread."""

    def work():
        deadline = time.monotonic() + 10
        while not jobs.producer.count_states()[State.QUEUED] and time.monotonic() < deadline:
            time.sleep(0.01)
        jobs.end(*end)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_wait_ends_with_0_when_the_job_was_sent(run, jobs):
    """The record is printed as it stands then."""
    thread = ends_when_enqueued(jobs, State.SENT)
    result = run(*SEND, "--wait", "10", "--json")
    thread.join()
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "sent"
    assert result.stderr == ""


def test_wait_ends_with_1_and_the_reason_when_the_job_failed(run, jobs):
    """The id is printed all the same."""
    thread = ends_when_enqueued(jobs, State.FAILED, "10/2018278", "outside of the window")
    result = run(*SEND, "--wait", "10")
    thread.join()
    assert result.exit_code == 1
    assert jobs.state(result.stdout.strip()) is State.FAILED
    assert result.stderr.splitlines() == [
        "failed: 10/2018278: outside of the window",
        "means: The messaging window is closed: the person has not written to the page lately.",
        "to do: Do not replay until the person has written again; then the window is open for 24 "
        "hours.",
    ]


def test_wait_ends_with_1_when_the_time_is_over(run, jobs):
    """And says in what state the job still is."""
    result = run(*SEND, "--wait", "0.2")
    assert result.exit_code == 1
    assert jobs.state(result.stdout.strip()) is State.QUEUED
    assert result.stderr == (
        "not finished after 0.2 s: it is still queued; does a worker run, and is its page not "
        "paused? see: harasocial-dispatch stats\n"
    )


def test_wait_ends_with_1_when_the_job_is_called_off(run, jobs):
    """A cancelled job will not be sent."""
    job_id = jobs.enqueue(idempotency_key="k")
    jobs.producer.cancel(job_id)
    result = run(*SEND, "--idempotency-key", "k", "--wait", "5")
    assert result.exit_code == 1
    assert result.stderr == "cancelled before it was sent\n"
