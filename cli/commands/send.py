"""`send`: enqueue one message, and optionally wait for it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import click
from click.core import ParameterSource

from ...producer import Producer
from ...schemas import (
    Delivery,
    IdempotencyConflict,
    InvalidJob,
    JobRecord,
    QueueUnavailable,
    Settings,
    State,
)
from ...schemas.error_codes import explain
from ..input.environment import open_producer
from ..input.options import examples, json_option, moment
from ..output.printing import NAME, is_terminal, print_json, print_notice, shown
from .send_now import send_now

#: The option for each field in an error.
_OPTIONS = {
    "page_id": "--page-id",
    "recipient.id": "--recipient-id",
    "message.payload_id": "--payload-id",
    "metadata": "--metadata",
    "idempotency_key": "--idempotency-key",
    "send_at": "--send-at",
    "expires_at": "--expires-at",
}
_BODY = ("recipient", "message", "page_id", "metadata")
_OPTIONS_OF_NOW = ("page_id", "recipient_id", "payload_id", "metadata", "now", "as_json")
_ENDED = (State.SENT, State.FAILED, State.CANCELLED)
#: Poll interval of --wait: the first and the longest.
_FIRST_LOOK_SECONDS, _LOOK_SECONDS = 0.05, 0.5


@click.command(
    epilog=examples(
        "send --page-id 500725830264749 --recipient-id 2560816460648749 --payload-id __hrf_f_…",
        "send --page-id … --recipient-id … --payload-id … --idempotency-key order-1001-paid",
        "send --page-id … --recipient-id … --payload-id … --send-at 2h --expires-at 1d",
        "send --page-id … --recipient-id … --payload-id … --wait 30 --json",
        "send --page-id … --recipient-id … --payload-id … --now",
    )
)
@click.option("--page-id", required=True, metavar="P", help="The page that sends.")
@click.option("--recipient-id", required=True, metavar="R", help="The person's PSID on this page.")
@click.option("--payload-id", required=True, metavar="X", help="The payload id, from Harasocial.")
@click.option("--metadata", metavar="M", help="A text that is returned in the message's echo.")
@click.option("--idempotency-key", metavar="K", help="All calls with the same key create one job.")
@click.option(
    "--send-at", type=moment(ahead=True), help="Earliest time to send: 2h, or a date and time."
)
@click.option(
    "--expires-at",
    type=moment(ahead=True),
    help="Deadline, the latest time to send: 1d, or a date and time.  "
    "[default: HARASOCIAL_EXPIRES_SECONDS]",
)
@click.option(
    "--at-most-once",
    is_flag=True,
    help="If the outcome is unknown, fail the job instead of retrying it.",
)
@click.option("--urgent", is_flag=True, help="Send before the other jobs of its page.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait until the job has ended, at most this long. Exit status 1 unless it was sent.",
)
@click.option(
    "--now",
    is_flag=True,
    help="Send once from this process, without queue or worker, and print the API's reply.",
)
@json_option
@click.pass_context
def send(
    ctx: click.Context,
    *,
    page_id: str,
    recipient_id: str,
    payload_id: str,
    metadata: str | None,
    idempotency_key: str | None,
    send_at: datetime | None,
    expires_at: datetime | None,
    at_most_once: bool,
    urgent: bool,
    wait_seconds: float | None,
    now: bool,
    as_json: bool,
) -> None:
    """Enqueue one message.

    Prints the job's id; on a terminal, also a hint. If the idempotency key belongs to a job with
    the same body, prints that job's id, and a notice on standard error. If the body is different,
    nothing is enqueued and the exit status is 2. With --wait and --json, prints the job after the
    wait.

    With --now, no job is created and Redis is not needed. Use it to test a token or a payload id.
    Prints the reply and its class. The exit status is 1 unless the message was accepted. The limits
    and pauses of the page do not apply.
    """
    row: dict[str, Any] = {
        "recipient": {"id": recipient_id},
        "message": {"payload_id": payload_id},
        "page_id": page_id,
        "idempotency_key": idempotency_key,
        "send_at": send_at,
        "expires_at": expires_at,
        "delivery": (Delivery.AT_MOST_ONCE if at_most_once else Delivery.AT_LEAST_ONCE).value,
        "urgent": urgent,
    }
    if metadata is not None:
        row["metadata"] = metadata
    if now:
        _refuse_what_is_for_jobs(ctx)
        body = {name: row[name] for name in _BODY if name in row}
        try:
            ctx.exit(send_now(Settings.from_environment(), body, as_json=as_json))
        except InvalidJob as error:
            raise _by_option(error) from None
    with open_producer() as producer:
        language = producer.settings.language
        job_id, already_enqueued = _enqueue(producer, row)
        # Printed before the wait, so that the id is available even if the wait is interrupted.
        if not as_json:
            _print_job_id(job_id, already_enqueued)
        elif wait_seconds is None:
            print_json({"job_id": job_id, "already_enqueued": already_enqueued})
        if wait_seconds is None:
            return
        try:
            record = _wait(producer, job_id, wait_seconds)
        except (QueueUnavailable, KeyboardInterrupt):
            print_notice(f"{job_id} is enqueued, but the wait for its end has failed")
            raise
    if as_json:
        print_json(record.as_json() | {"already_enqueued": already_enqueued})
    if record.state is State.SENT:
        if is_terminal() and not as_json:
            click.echo("sent")
        return
    print_notice(_reason(record, wait_seconds))
    if record.state is State.FAILED and (explanation := explain(record.error_code, language)):
        print_notice(f"meaning: {explanation.meaning}")
        print_notice(f"what to do: {explanation.remedy}")
    ctx.exit(1)


def _refuse_what_is_for_jobs(ctx: click.Context) -> None:
    """Raise UsageError if an option was given that applies only to a job."""
    for parameter in ctx.command.params:
        name = str(parameter.name)
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OPTIONS_OF_NOW:
            raise click.UsageError(f"{parameter.opts[0]} applies to a job; --now creates none.")


def _enqueue(producer: Producer, row: dict[str, Any]) -> tuple[str, bool]:
    """Enqueue one row; return the job's id, and whether it was already enqueued.

    Raises:
        InvalidJob, IdempotencyConflict: with the names of options instead of fields.
    """
    try:
        report = producer.enqueue_many([row])
    except InvalidJob as error:
        raise _by_option(error) from None
    except IdempotencyConflict as error:
        raise IdempotencyConflict(
            idempotency_key=error.idempotency_key,
            job_id=error.job_id,
            fields=[_OPTIONS[path] for path in error.fields],
        ) from None
    return report.accepted[0], report.new_count == 0


def _by_option(error: InvalidJob) -> InvalidJob:
    """Return the error with option names instead of field names."""
    return InvalidJob(
        {
            _OPTIONS.get(path.removeprefix("[0]."), path): [
                text.replace("send_at", "--send-at") for text in texts
            ]
            for path, texts in error.errors.items()
        }
    )


def _print_job_id(job_id: str, already_enqueued: bool) -> None:
    if is_terminal():
        what = "already enqueued" if already_enqueued else "enqueued"
        click.echo(f"{what} {job_id}; to show it: {NAME} show {job_id}")
        return
    if already_enqueued:
        print_notice(f"{job_id} was already enqueued with this idempotency key")
    click.echo(job_id)


def _wait(producer: Producer, job_id: str, wait_seconds: float) -> JobRecord:
    """Return the job when it has ended, or its current state after `wait_seconds`."""
    deadline = time.monotonic() + wait_seconds
    pause_seconds = _FIRST_LOOK_SECONDS
    while True:
        record = producer.get_job(job_id)
        left_seconds = deadline - time.monotonic()
        if record.state in _ENDED or left_seconds <= 0:
            return record
        time.sleep(min(pause_seconds, left_seconds))
        pause_seconds = min(2 * pause_seconds, _LOOK_SECONDS)


def _reason(record: JobRecord, wait_seconds: float) -> str:
    if record.state is State.CANCELLED:
        return "canceled before it was sent"
    because = ": ".join(
        text for text in (shown(record.error_code), shown(record.error_message)) if text
    )
    if record.state is State.FAILED:
        return f"failed: {because}" if because else "failed"
    still = f"not ended after {wait_seconds:g} s: it is still {record.state}"
    if because:
        return f"{still} (latest attempt: {because})"
    if record.state is State.QUEUED:
        return f"{still}; check that a worker runs and the page is not paused: {NAME} stats"
    return still
