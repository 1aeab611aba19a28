"""`send`: one message."""

from __future__ import annotations

import json
import threading
import time
from itertools import chain

import pytest
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import State
from support.command_line import Jobs, Run
from support.harness import DEADLINE_SECONDS, free_port, present

PAGE, RECIPIENT = "500725830264749", "2560816460648749"
SEND = ("send", "--page-id", PAGE, "--recipient-id", RECIPIENT, "--payload-id", "p")


def send_with(*options: str) -> list[str]:
    """Return `SEND` with the options (each followed by its value) added or replaced."""
    values = dict(zip(SEND[1::2], SEND[2::2], strict=True))
    values.update(zip(options[::2], options[1::2], strict=True))
    return ["send", *chain.from_iterable(values.items())]


def test_without_a_terminal_only_the_job_id_is_printed(run: Run, jobs: Jobs) -> None:
    """A script can store it."""
    result = run(*SEND, "--metadata", "order 1001")
    job = jobs.producer.get_job(result.stdout.strip())
    assert result.exit_code == 0
    assert job.state is State.QUEUED
    assert job.job["recipient"] == {"id": RECIPIENT}
    assert job.job["metadata"] == "order 1001"


def test_every_option_reaches_the_job(run: Run, jobs: Jobs) -> None:
    """Times may be durations or dates."""
    result = run(
        *(*SEND, "--idempotency-key", "k-1", "--send-at", "2h", "--expires-at", "1d"),
        *("--at-most-once", "--urgent", "--json"),
    )
    record = jobs.producer.get_job(json.loads(result.stdout)["job_id"])
    assert record.state is State.SCHEDULED
    assert record.idempotency_key == "k-1"
    assert record.delivery.value == "at_most_once"
    life = present(record.expires_at) - present(record.send_at)
    assert life.total_seconds() == pytest.approx(22 * 3600, abs=5)


def test_a_repeated_key_returns_the_same_job_with_a_notice(run: Run, jobs: Jobs) -> None:
    """Standard output has only the id, for scripts."""
    first, second = (run(*SEND, "--idempotency-key", "k") for _ in range(2))
    assert first.stdout == second.stdout
    job_id = first.stdout.strip()
    assert (first.exit_code, first.stderr) == (0, "")
    assert second.exit_code == 0
    assert second.stderr == f"{job_id} was already enqueued with this idempotency key\n"
    assert jobs.producer.count_states()[State.QUEUED] == 1

    keys = ("k", "new", "new")
    printed = [json.loads(run(*SEND, "--idempotency-key", k, "--json").stdout) for k in keys]
    assert [found["already_enqueued"] for found in printed] == [True, False, True]
    assert printed[0]["job_id"] == job_id
    waited = run(*SEND, "--idempotency-key", "k", "--json", "--wait", "0")
    assert json.loads(waited.stdout)["already_enqueued"] is True


def test_a_key_of_another_message_is_wrong_usage(run: Run, jobs: Jobs) -> None:
    """The error names the options that differ, and nothing is enqueued."""
    job_id = run(*SEND, "--idempotency-key", "k").stdout.strip()
    other = send_with("--idempotency-key", "k", "--recipient-id", "77", "--metadata", "m")
    result = run(*other)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"Error: idempotency key 'k' belongs to job {job_id}, which has another --recipient-id and "
        "--metadata; nothing was enqueued. Use another key for another message.\n"
    )
    error = json.loads(run(*other, "--json").stderr)["error"]
    assert (error["type"], error["exit_status"]) == ("idempotency_conflict", 2)
    assert (error["idempotency_key"], error["job_id"]) == ("k", job_id)
    assert error["differing_fields"] == ["--recipient-id", "--metadata"]
    assert jobs.producer.count_states()[State.QUEUED] == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--page-id", "x"), "--page-id: Must be a string of digits, nothing else."),
        (("--recipient-id", "abc"), "--recipient-id: Must be a string of digits, nothing else."),
        (("--payload-id", " "), "--payload-id: Must not be blank."),
        (("--metadata", "x" * 501), "--metadata: Must have at most 500 characters; has 501."),
        (
            ("--idempotency-key", ""),
            "--idempotency-key: Must be a string of printable characters, not blank.",
        ),
        (("--send-at", "500d"), "--send-at: Is more than 366 days ahead."),
        (("--expires-at", "500d"), "--expires-at: Is more than 366 days ahead."),
        (("--send-at", "2h", "--expires-at", "1h"), "--expires-at: Must be after --send-at."),
    ],
)
def test_an_invalid_job_is_wrong_usage_naming_the_option(
    run: Run, jobs: Jobs, options: tuple[str, ...], error: str
) -> None:
    """The error names the option, not the API's field, and nothing is enqueued."""
    result = run(*send_with(*options))
    assert (result.exit_code, result.stderr) == (2, f"Error: {error}\n")
    assert jobs.producer.count_states()[State.QUEUED] == 0


def test_every_error_has_its_own_line(run: Run) -> None:
    """All errors are printed together."""
    result = run(*send_with("--recipient-id", "abc", "--metadata", "x" * 501))
    lines = result.stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["--recipient-id:", "--metadata:"]


def ends_when_enqueued(jobs: Jobs, state: State, *reason: str) -> threading.Thread:
    """Record the outcome of the next job in a thread, as a worker does."""

    def work() -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not jobs.producer.count_states()[State.QUEUED] and time.monotonic() < deadline:
            time.sleep(0.01)
        jobs.end(state, *reason)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_wait_ends_with_0_when_the_job_was_sent(run: Run, jobs: Jobs) -> None:
    """The record after the wait is printed."""
    thread = ends_when_enqueued(jobs, State.SENT)
    result = run(*SEND, "--wait", "60", "--json")
    thread.join()
    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "sent"
    assert result.stderr == ""


def test_wait_ends_with_1_and_the_reason_when_the_job_failed(run: Run, jobs: Jobs) -> None:
    """The id is still printed."""
    thread = ends_when_enqueued(jobs, State.FAILED, "10/2018278", "outside of the window")
    result = run(*SEND, "--wait", "60")
    thread.join()
    assert result.exit_code == 1
    assert jobs.state(result.stdout.strip()) is State.FAILED
    assert result.stderr.splitlines() == [
        "failed: 10/2018278: outside of the window",
        "meaning: The messaging window is closed: the person has not written to the page lately.",
        "what to do: Do not replay until the person has written again; then the window is open "
        "for 24 hours.",
    ]


def test_wait_ends_with_1_when_the_time_is_over(run: Run, jobs: Jobs) -> None:
    """The message has the current state of the job."""
    result = run(*SEND, "--wait", "0.2")
    assert result.exit_code == 1
    assert jobs.state(result.stdout.strip()) is State.QUEUED
    assert result.stderr == (
        "not ended after 0.2 s: it is still queued; check that a worker runs and the "
        "page is not paused: harasocial-dispatch stats\n"
    )


def test_wait_ends_with_1_when_the_job_is_canceled(run: Run, jobs: Jobs) -> None:
    """A canceled job is not sent."""
    job_id = run(*SEND, "--idempotency-key", "k").stdout.strip()
    jobs.producer.cancel(job_id)
    result = run(*SEND, "--idempotency-key", "k", "--wait", "5")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "canceled before it was sent"


@pytest.mark.parametrize(
    ("payload", "status", "expected"),
    [
        ("p", 0, ("accepted", None, 200)),
        ("sandbox:code:551", 1, ("permanent", "551", 200)),
        ("sandbox:status:401", 1, ("auth", "http_401", 401)),
        ("sandbox:drop", 1, ("ambiguous", "connection_lost", None)),
    ],
)
def test_now_sends_once_without_queue_and_prints_the_reply(
    payload: str,
    status: int,
    expected: tuple[str, str | None, int | None],
    run: Run,
    environment: pytest.MonkeyPatch,
    sandbox: Sandbox,
) -> None:
    """Redis is not needed. The token is not printed, even if the reply quotes it."""
    environment.setenv("HARASOCIAL_REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    environment.setenv("HARASOCIAL_API_URL", sandbox.url)
    environment.setenv("HARASOCIAL_TOKEN", DEFAULT_TOKEN)
    command = send_with("--payload-id", payload)

    printed = json.loads(run(*command, "--now", "--json").stdout)
    assert (printed["outcome_class"], printed["error_code"], printed["http_status"]) == expected
    shown = run(*command, "--now")
    assert shown.exit_code == status
    assert expected[0] in shown.stdout
    if expected[2] == 200:
        assert "has_error" in shown.stdout
    assert sandbox.totals().posts == 2


def test_now_echoes_no_token(run: Run, environment: pytest.MonkeyPatch, sandbox: Sandbox) -> None:
    """The token is removed in every form in which the API can quote it."""
    environment.setenv("HARASOCIAL_API_URL", sandbox.url)
    environment.setenv("HARASOCIAL_TOKEN", DEFAULT_TOKEN)
    result = run(*send_with("--payload-id", "sandbox:echo_token"), "--now")
    assert "[token]" in result.stdout
    assert DEFAULT_TOKEN not in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--wait", "3"), "--wait applies to a job; --now creates none."),
        (("--idempotency-key", "k"), "--idempotency-key applies to a job"),
        (("--urgent",), "--urgent applies to a job"),
    ],
)
def test_now_rejects_options_of_a_job(more: tuple[str, ...], message: str, run: Run) -> None:
    """For example, an idempotency key would not prevent a second message."""
    result = run(*SEND, "--now", *more)
    assert result.exit_code == 2
    assert message in result.stderr


def test_now_names_a_wrong_option_and_a_missing_token(
    run: Run, environment: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    """Nothing is sent."""
    environment.setenv("HARASOCIAL_API_URL", sandbox.url)
    missing = run(*SEND, "--now")
    environment.setenv("HARASOCIAL_TOKEN", DEFAULT_TOKEN)
    wrong = run(*send_with("--page-id", "not digits"), "--now")
    assert (missing.exit_code, wrong.exit_code) == (2, 2)
    assert "HARASOCIAL_TOKEN" in missing.stderr
    assert "--page-id" in wrong.stderr
    assert sandbox.totals().requests == 0
