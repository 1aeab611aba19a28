"""Options and confirmations that several commands share, and the layout of their help."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import Any, TypeVar

import click

from ...ledger import ALL_PAGES, JobFilter
from ...schemas import State
from ..output.printing import NAME, print_notice
from ..output.times import local
from .times import parse_duration, parse_time


def examples(*lines: str) -> str:
    """Return an epilog with example commands; `lines` are the arguments of each one."""
    # With \b, click does not join the lines.
    return "\n".join(["\b", "Examples:", *(f"  {NAME} {line}" for line in lines)])


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


limit_option = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="Maximum number of entries to list.",
)
reason_option = click.option(
    "--reason", default="", metavar="TEXT", help="The reason, shown to other operators."
)
yes_option = click.option("--yes", is_flag=True, help="Skip the confirmation.")


def check_can_confirm(*, given: bool, options: str = "--yes or --dry-run") -> None:
    """Reject a command that cannot ask for a confirmation, unless one of its `options` is given."""
    if not (given or sys.stdin.isatty()):
        raise click.UsageError(f"Without a terminal, {options} is required.")


def confirm(question: str, what: str) -> None:
    """Ask `question`. If the answer is no, print `nothing was …`, and exit with status 1."""
    if not click.confirm(question, err=True):
        print_notice(f"nothing was {what}")
        click.get_current_context().exit(1)


R = TypeVar("R")


class Parsed(click.ParamType[R]):
    """The type of an option whose text `parse` converts; its ValueError is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], R]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> R:
        """Return the converted value."""
        try:
            return self._parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def moment(*, ahead: bool = False, end_of_day: bool = False) -> Parsed[datetime]:
    """Return the type of a time option. See `parse_time`."""
    return Parsed(
        "time",
        lambda text: parse_time(
            text, now=datetime.now(timezone.utc), ahead=ahead, end_of_day=end_of_day
        ),
    )


def _share(text: str) -> float:
    """Return the share of a percentage: `20%` or `20` is 0.2. Above 0%, at most 100%."""
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise ValueError(f"{text!r} is not a percentage above 0%, up to 100%, such as 5%")
    return percent / 100


#: The type of a duration option, in seconds. See `parse_duration`.
DURATION = Parsed("duration", lambda text: parse_duration(text).total_seconds())
#: The type of a percentage option, as a fraction.
PERCENTAGE = Parsed("percentage", _share)


def page_or_all(all_help: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the argument PAGE and the option --all to a command. The user must give one of them.

    The command receives `page_id`, which is `ALL_PAGES` for --all.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_page(*args: Any, page: str | None, every: bool, **kwargs: Any) -> R:
            if (page is not None) == every:
                raise click.UsageError("Give either PAGE or --all.")
            return command(*args, page_id=ALL_PAGES if page is None else page, **kwargs)

        argument = click.argument("page", metavar="[PAGE]", required=False)
        return argument(click.option("--all", "every", is_flag=True, help=all_help)(with_page))

    return decorate


def since_and_until(what: str) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the options --since and --until to a command. They bound the times of `what`."""

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_bounds(
            *args: Any, since: datetime | None, until: datetime | None, **kwargs: Any
        ) -> R:
            if since and until and since > until:
                raise click.UsageError(
                    f"--since ({local(since)}) is after --until ({local(until)})."
                )
            return command(*args, since=since, until=until, **kwargs)

        since_option = click.option(
            "--since",
            type=moment(),
            help=f"Only {what} after this time: 30m, 2h, 1d, or a date and time.",
        )
        until_option = click.option(
            "--until",
            type=moment(end_of_day=True),
            help=f"Only {what} before this time. A date includes the whole day.",
        )
        return since_option(until_option(with_bounds))

    return decorate


def filters(*, with_state: bool = False) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Add the filter options to a command, which receives them as `wanted`, a `JobFilter`.

    If an option is repeated, a job matches if it has any of the values.
    """

    def decorate(command: Callable[..., R]) -> Callable[..., R]:
        @wraps(command)
        def with_filter(
            *args: Any,
            error_code: tuple[str, ...],
            page_id: tuple[str, ...],
            campaign: tuple[str, ...],
            since: datetime | None,
            until: datetime | None,
            state: tuple[str, ...] = (),
            **kwargs: Any,
        ) -> R:
            try:
                wanted = JobFilter(
                    states=tuple(map(State, state)),
                    error_codes=error_code,
                    page_ids=page_id,
                    campaigns=campaign,
                    since=since,
                    until=until,
                )
            except ValueError as error:
                raise click.UsageError(f"{error}.") from None
            return command(*args, wanted=wanted, **kwargs)

        decorated = since_and_until("jobs that ended (or were enqueued)")(with_filter)
        for option in reversed(_FILTERS if with_state else _FILTERS[1:]):
            decorated = option(decorated)
        return decorated

    return decorate


_FILTERS = (
    click.option(
        "--state",
        type=click.Choice([state.value for state in State]),
        multiple=True,
        help="Only jobs in this state. Can be repeated.",
    ),
    click.option(
        "--error-code",
        metavar="C",
        multiple=True,
        help="Only jobs that failed with this code. Can be repeated.",
    ),
    click.option(
        "--page-id", metavar="P", multiple=True, help="Only jobs of this page. Can be repeated."
    ),
    click.option(
        "--campaign",
        metavar="NAME",
        multiple=True,
        help="Only jobs of this campaign. Can be repeated.",
    ),
)
