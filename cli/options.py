"""The options that several commands take, and how their help is laid out."""

from __future__ import annotations

import click

from .times import Moment

NAME = "harasocial-dispatch"


def examples(*lines: str) -> str:
    """Return an epilog of commands to try; each line is what follows the program's name."""
    # \b keeps click from joining the lines.
    return "\n".join(["\b", "Examples:", *(f"  {NAME} {line}" for line in lines)])


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
page_option = click.option("--page-id", metavar="P", help="Only jobs of this page.")
error_code_option = click.option(
    "--error-code", metavar="C", help="Only jobs that failed with this code."
)
since_option = click.option(
    "--since",
    type=Moment(),
    help="Only jobs that ended (or were enqueued) after this: 30m, 2h, 1d, or a date and time.",
)
until_option = click.option(
    "--until",
    type=Moment(end_of_day=True),
    help="Only jobs that ended (or were enqueued) before this; a date counts whole.",
)
