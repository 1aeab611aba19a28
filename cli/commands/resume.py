"""`resume`: end an operator's pause."""

from __future__ import annotations

import click

from ...ledger import ALL_PAGES, MANUAL, Ledger, Lifted, Pause
from ...schemas import Settings
from ...schemas.language import Language
from ..input.environment import open_ledger
from ..input.options import examples, json_option, page_or_all
from ..output.pause_view import print_pauses
from ..output.printing import NAME, print_json, print_notice


@click.command(epilog=examples("resume 500725830264749", "resume --all"))
@page_or_all("End the pause of all pages. Pages that are paused individually stay paused.")
@json_option
@click.pass_context
def resume(ctx: click.Context, *, page_id: str, as_json: bool) -> None:
    """End the pause of PAGE, so that its jobs are sent again.

    If the worker paused the page, for example because its calls fail, its next message is sent
    now. If it succeeds, the others are sent too. If the page is not paused, the exit status is 1.
    """
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        if page_id == ALL_PAGES:
            was_paused = ledger.resume_all(via="cli")
            lifted = Lifted.MANUAL if was_paused else Lifted.NOTHING
        else:
            lifted = ledger.resume_page(page_id, via="cli")
        left = _manual_pauses(ledger, page_id)
    if as_json:
        print_json(
            {
                "page_id": page_id,
                "resumed": lifted.value if lifted is not Lifted.NOTHING else None,
                "still_paused": [pause.page_id for pause in left],
            }
        )
    else:
        _print(page_id, lifted, left, settings.language)
    if lifted is Lifted.NOTHING:
        ctx.exit(1)


def _manual_pauses(ledger: Ledger, page_id: str) -> list[Pause]:
    """Return the operators' pauses that still block the page or pages."""
    reader = ledger.reader
    pauses = reader.pauses() if page_id == ALL_PAGES else reader.pauses_of(page_id)
    return [pause for pause in pauses if pause.reason == MANUAL]


def _print(page_id: str, lifted: Lifted, left: list[Pause], language: Language) -> None:
    everything = page_id == ALL_PAGES
    if lifted is Lifted.MANUAL:
        click.echo(
            "the pause of all pages has ended" if everything else f"page {page_id} is resumed"
        )
    elif lifted is Lifted.AUTOMATIC:
        click.echo(f"page {page_id} was paused by the worker; its next message is sent now")
    else:
        print_notice(
            "there is no pause of all pages; nothing was changed"
            if everything
            else f"page {page_id} is not paused; nothing was changed"
        )
    if left and everything:
        print_notice("these pages are still paused individually:")
        print_pauses(left, language)
    elif left:
        print_notice(f"the pause of all pages still applies; to end it: {NAME} resume --all")
