"""`campaigns`: list the campaigns."""

from __future__ import annotations

import click

from ..input.environment import open_producer
from ..input.options import examples, json_option
from ..output.campaign_view import LIST_COLUMNS, list_row
from ..output.printing import print_json, print_notice, print_table


@click.command(epilog=examples("campaigns", "campaigns --json"))
@json_option
def campaigns(as_json: bool) -> None:
    """List the campaigns, the most recently changed first.

    A campaign is listed for HARASOCIAL_CAMPAIGN_TTL_SECONDS after its last change. With --json,
    prints one object per line, as `campaign show` does but without errors and pages.
    """
    with open_producer() as producer:
        found = producer.find_campaigns()
    if as_json:
        for campaign in found:
            print_json(campaign.as_json())
        return
    if not found:
        print_notice("no campaigns")
        return
    print_table(LIST_COLUMNS, [list_row(campaign) for campaign in found])
