"""`campaigns`: list the campaigns."""

from __future__ import annotations

import click

from ..input.environment import open_producer
from ..input.options import examples, json_option
from ..output.campaign_view import LIST_COLUMNS, list_row
from ..output.printing import print_list


@click.command(epilog=examples("campaigns", "campaigns --json"))
@json_option
def campaigns(as_json: bool) -> None:
    """List the campaigns, the most recently changed first.

    A campaign is listed for HARASOCIAL_CAMPAIGN_TTL_SECONDS after its last change. With --json,
    prints one object per line, as `campaign show` does but without errors and pages.
    """
    with open_producer() as producer:
        found = producer.find_campaigns()
    print_list(found, LIST_COLUMNS, list_row, as_json=as_json, if_none="no campaigns")
