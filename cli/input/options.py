"""Options that several commands share, and the layout of their help."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import click

from ...ledger import ALL_PAGES, JobFilter
from ...schemas import State
from ..output.printing import NAME
from .times import Moment, check_bounds


def examples(*lines: str) -> str:
    """Return an epilog with example commands; `lines` are the arguments of each one."""
    # With \b, click does not join the lines.
    return "\n".join(["\b", "Examples:", *(f"  {NAME} {line}" for line in lines)])


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


class Percentage(click.ParamType[float]):
    """The type of a percentage option: `20%` or `20` is 0.2. Greater than 0%, at most 100%."""

    name = "percentage"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the share as a fraction; an invalid value is a usage error."""
        if isinstance(value, float):
            return value
        try:
            percent = float(str(value).strip().removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            self.fail(f"{value!r} is not a percentage above 0%, up to 100%, such as 5%", param, ctx)
        return percent / 100


R = TypeVar("R")


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
            check_bounds(since, until)
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

        decorated = with_filter
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
    click.option(
        "--since",
        type=Moment(),
        help="Only jobs that ended (or were enqueued) after this: 30m, 2h, 1d, or a date and time.",
    ),
    click.option(
        "--until",
        type=Moment(end_of_day=True),
        help="Only jobs that ended (or were enqueued) before this. A date includes the whole day.",
    ),
)
