"""`rate`: set the rate of a page, or list the rates."""

from __future__ import annotations

import click

from ...ledger import Ledger, PageRate
from ...schemas import Settings, check_page_id, from_stored, iso_utc, rate_problem
from ..input.environment import open_ledger
from ..input.options import examples, json_option
from ..output.printing import Column, print_json, print_notice, print_table, shown
from ..output.times import local


@click.command(
    # Parse a negative number as an argument; the ledger rejects it with a clear error.
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "rate",
        "rate 500725830264749 20",
        "rate 500725830264749 20 --burst 5",
        "rate 500725830264749 --default",
    ),
)
@click.argument("page_id", metavar="[PAGE]", required=False)
@click.argument("rate", metavar="[N]", type=float, required=False)
@click.option(
    "--burst",
    type=int,
    metavar="B",
    help="Maximum number of messages to send at once.  [default: HARASOCIAL_PAGE_BURST]",
)
@click.option(
    "--default", "to_default", is_flag=True, help="Reset the page to the rate in the settings."
)
@json_option
def rate(
    *,
    page_id: str | None,
    rate: float | None,
    burst: int | None,
    to_default: bool,
    as_json: bool,
) -> None:
    """Limit PAGE to N messages per second, over all workers.

    Takes effect within a second, without a restart. 0 means no limit. Without N, shows the page's
    rate. Without PAGE, lists the pages that have their own rate.
    """
    if page_id is None and to_default:
        raise click.UsageError("Name the PAGE to reset to the default rate.")
    if rate is not None and to_default:
        raise click.UsageError("Give either N or --default, not both.")
    if rate is None and burst is not None:
        raise click.UsageError("--burst requires N, the messages per second.")
    settings = Settings.from_environment()
    with open_ledger(settings) as ledger:
        if page_id is None:
            _print_rates(ledger.reader.rates(), settings, as_json)
        elif rate is not None:
            ledger.set_rate(page_id, rate, burst, via="cli")
            _print_rate(ledger, settings, page_id, as_json)
        elif to_default:
            if not ledger.clear_rate(page_id, via="cli"):
                print_notice(f"page {page_id} already has the default rate; nothing was changed")
            _print_rate(ledger, settings, page_id, as_json)
        else:
            _print_rate(ledger, settings, check_page_id(page_id), as_json)


def _print_rate(ledger: Ledger, settings: Settings, page_id: str, as_json: bool) -> None:
    own = next((each for each in ledger.reader.rates() if each.page_id == page_id), None)
    found = own or _default(settings, page_id)
    if as_json:
        print_json(_facts(found, is_default=own is None))
    else:
        click.echo(f"page {page_id}: {_rate_text(found)}{'' if own else ', the default'}")
        if not ledger.reader.count_waiting([page_id])[page_id]:
            print_notice(f"page {page_id} has no waiting jobs")
    problem = rate_problem(found.rate, found.burst)
    if problem:
        print_notice(f"warning: the rate of page {page_id} {problem}")


def _print_rates(rates: list[PageRate], settings: Settings, as_json: bool) -> None:
    default = _default(settings, "")
    if as_json:
        print_json(
            {
                "default": {"rate": default.rate, "burst": default.burst},
                "pages": [_facts(each, is_default=False) for each in rates],
            }
        )
        return
    click.echo(f"default: {_rate_text(default)} (HARASOCIAL_PAGE_RATE, HARASOCIAL_PAGE_BURST)")
    if rates:
        print_table(
            [
                Column("page"),
                Column("a second", right=True),
                Column("burst", right=True),
                Column("set by"),
                Column("at", spare=1),
            ],
            [
                [
                    shown(each.page_id),
                    f"{each.rate:g}" if each.rate else "no limit",
                    str(each.burst),
                    shown(each.by),
                    local(from_stored(each.at_ms)),
                ]
                for each in rates
            ],
        )


def _default(settings: Settings, page_id: str) -> PageRate:
    return PageRate(
        page_id=page_id, rate=settings.page_rate, burst=settings.page_burst, by="", at_ms=0
    )


def _rate_text(rate: PageRate) -> str:
    if not rate.rate:
        return "no limit"
    return f"{rate.rate:g} messages per second, burst {rate.burst}"


def _facts(rate: PageRate, *, is_default: bool) -> dict[str, object]:
    return {
        "page_id": rate.page_id,
        "rate": rate.rate,
        "burst": rate.burst,
        "is_default": is_default,
        "by": rate.by or None,
        "at": iso_utc(from_stored(rate.at_ms)) if rate.at_ms else None,
    }
