"""`show`: one job and its attempts."""

from __future__ import annotations

import click

from ..input.environment import open_producer
from ..input.options import examples, json_option
from ..output.job_view import print_job
from ..output.printing import print_json


@click.command(epilog=examples("show 1f0c…", "show 1f0c… --json"))
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show a job and its attempts.

    ID may be the beginning of a job's id, of 8 characters or more, if no other job's id has it.

    The recipient's id is shown by its last 4 digits; --json has the body as it was sent.
    """
    with open_producer() as producer:
        language = producer.settings.language
        record = producer.get_job(producer.find_job_id(job_id))
    if as_json:
        print_json(record.as_json())
    else:
        print_job(record, language)
