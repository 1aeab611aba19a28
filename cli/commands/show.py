"""`show`: one job and its attempts."""

from __future__ import annotations

from datetime import datetime, timezone

import click

from ...ledger import Reader
from ...schemas import JobNotFound, JobRecord, Settings, State
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..output.job_view import print_job
from ..output.pause_view import waiting_text
from ..output.printing import print_json

#: States in which a job waits for its page.
_WAITING = (State.SCHEDULED, State.QUEUED, State.RETRYING)


@click.command(epilog=examples("show 1f0c…", "show 1f0c… --json"))
@click.argument("job_id", metavar="ID")
@json_option
def show(job_id: str, as_json: bool) -> None:
    """Show a job and its attempts, and why it waits.

    ID may be the beginning of a job's id, 8 characters or more.

    Only the last 4 digits of the recipient's id are shown; --json prints the body as it was sent.
    """
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        reader = ledger.reader
        record = reader.get(reader.find_id(job_id))
        if record is None:
            raise JobNotFound(job_id)
        waiting = "" if as_json else _waiting(reader, record)
    if as_json:
        print_json(record.as_json())
    else:
        print_job(record, settings.language, waiting)


def _waiting(reader: Reader, record: JobRecord) -> str:
    """Return why a job waits, as text; an empty text if it does not wait."""
    if record.state not in _WAITING:
        return ""
    campaign = reader.campaign(record.campaign) if record.campaign else None
    return waiting_text(
        reader.pauses_of(record.page_id) if record.page_id else [],
        campaign.hold if campaign else None,
        reader.jobs_ahead(record) if record.state is State.QUEUED else None,
        datetime.now(timezone.utc),
    )
