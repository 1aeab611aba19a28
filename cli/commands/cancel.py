"""`cancel`: cancel waiting jobs."""

from __future__ import annotations

import click

from ...schemas import JobNotFound, State
from ..input.connection import open_producer
from ..input.job_ids import print_refused, states_as_json, whole_ids
from ..input.options import examples, json_option
from ..output.printing import is_terminal, print_json


@click.command(epilog=examples("cancel 1f0c…", "cancel 1f0c… 2a9b… --json"))
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
@json_option
@click.pass_context
def cancel(ctx: click.Context, job_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel jobs that are scheduled, queued or retrying.

    ID may be the beginning of a job's id, of 8 characters or more, if no other job's id has it.
    What is being sent, or has ended, stays as it is; the exit status is 1 then.
    """
    cancelled: list[str] = []
    refused: dict[str, State | None] = {}
    with open_producer() as producer:
        for job_id in whole_ids(producer.find_job_id, job_ids):
            try:
                if producer.cancel(job_id):
                    cancelled.append(job_id)
                    if not as_json:
                        click.echo(f"cancelled {job_id}" if is_terminal() else job_id)
                else:
                    refused[job_id] = producer.get_job(job_id).state
            except JobNotFound:
                refused[job_id] = None
    if as_json:
        print_json({"cancelled": cancelled, "not_cancelled": states_as_json(refused)})
    else:
        print_refused(refused, "cannot be cancelled")
    if refused:
        ctx.exit(1)
