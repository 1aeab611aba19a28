"""The command `harasocial-dispatch`.

Each command is in the module named after it, and is registered in `commands` below.
Exit status: 0 done; 1 the job or the demo failed; 2 wrong usage or settings; 3 some rows were
rejected; 4 Redis is not available.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from pathlib import Path
from traceback import extract_tb
from typing import Any

import click

from ..schemas import (
    AmbiguousJobId,
    CampaignCanceled,
    CampaignNotFound,
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    InvalidRequest,
    JobNotFound,
    QueueUnavailable,
    SettingsError,
)
from .commands.audit import audit
from .commands.campaign import campaign
from .commands.campaigns import campaigns
from .commands.cancel import cancel
from .commands.check import check
from .commands.demo import demo
from .commands.enqueue import enqueue
from .commands.errors import errors
from .commands.export import export
from .commands.flower import flower
from .commands.pause import pause
from .commands.rate import rate
from .commands.replay import replay
from .commands.results import results
from .commands.resume import resume
from .commands.sandbox import sandbox
from .commands.send import send
from .commands.show import show
from .commands.stats import stats
from .commands.watch import watch
from .commands.worker import worker
from .output.printing import JSON_ERRORS, NAME, Problem, print_error

#: Exit statuses after Ctrl-C or a closed pipe, as in a shell: 128 plus the signal's number.
_INTERRUPTED, _BROKEN_PIPE = 130, 141

_EPILOG = f"""\
Settings are read from the environment, or from a file .env: HARASOCIAL_REDIS_URL,
HARASOCIAL_TOKEN and others. '{NAME} check' checks them.

Exit status: 0 done; 1 the job or the demo failed, or a job was not found; 2 wrong usage or
settings; 3 some rows were rejected; 4 Redis is not available.

With --json, standard error has one JSON object per line: an error as
{{"error": {{"type": "usage", "message": "…", "exit_status": 2}}}}, a notice as
{{"notice": "…"}}. Types: usage, settings, invalid_job (with "fields"), idempotency_conflict (with
"idempotency_key", "job_id", "differing_fields"), job_not_found (with "job_id"),
campaign_not_found and campaign_canceled (with "name"), ambiguous_job_id (with "candidates"),
invalid_request, queue_unavailable, enqueue_unknown (with "job_ids"), os, failed, interrupted,
internal.

\b
Shell completion, for ~/.bashrc (use zsh_source or fish_source for zsh or fish):
  eval "$(_HARASOCIAL_DISPATCH_COMPLETE=bash_source {NAME})"
"""


class _Commands(click.Group):
    """The command group. Only this class turns errors into a message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are registered."""
        return list(self.commands)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """Return the context of a command line. With --json, errors are printed as JSON."""
        # Set before parsing, because parsing raises usage errors. Values follow `--`.
        as_json = "--json" in args[: args.index("--") if "--" in args else None]
        try:
            ctx = super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            if not as_json:
                raise
            print_error(_explain_click(error), as_json=True)
            raise click.exceptions.Exit(error.exit_code) from None
        ctx.meta[JSON_ERRORS] = as_json
        return ctx

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command's name, the command and its arguments.

        Raises:
            click.UsageError: a single-value option is given several times. click would use
                the last one and ignore the others.
        """
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _refuse_repeated(ctx, name, command, rest)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that `ctx` names."""
        as_json = ctx.meta.get(JSON_ERRORS, False)
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except click.ClickException as error:
            if not as_json:
                raise
            problem = _explain_click(error)
        except (KeyboardInterrupt, click.Abort):
            problem = Problem("interrupted", [], _INTERRUPTED, hint="Interrupted.")
        except BrokenPipeError:
            _discard_output()
            ctx.exit(_BROKEN_PIPE)
        except Exception as error:  # noqa: BLE001 - the outermost handler
            problem = _explain(error)
        print_error(problem, as_json=as_json)
        raise click.exceptions.Exit(problem.exit_status)


def _refuse_repeated(
    ctx: click.Context, name: str | None, command: click.Command, arguments: list[str]
) -> None:
    with click.Context(command, ctx, name, **command.context_settings) as own:
        try:
            _, _, order = command.make_parser(own).parse_args(list(arguments))
        except click.UsageError:
            return  # The command itself reports the interruption.
        options = [option for option in order if isinstance(option, click.Option)]
        for option in options:
            single = not (option.multiple or option.count or option.is_flag)
            if single and options.count(option) > 1:
                raise click.UsageError(
                    f"{option.opts[0]} is given {options.count(option)} times; it takes one value.",
                    own,
                )


def _explain_click(error: click.ClickException) -> Problem:
    kind = "usage" if isinstance(error, click.UsageError) else "failed"
    return Problem(kind, [error.format_message()], error.exit_code)


def _explain(error: Exception) -> Problem:
    """Return the error message to print for `error`."""
    match error:
        case InvalidJob():
            texts = [f"{path}: {' '.join(whys)}" for path, whys in error.errors.items()]
            return Problem("invalid_job", texts, 2, {"fields": error.errors})
        case SettingsError():
            return Problem("settings", [str(error)], 2)
        case InvalidRequest():
            return Problem("invalid_request", [str(error)], 2)
        case IdempotencyConflict():
            details = {
                "idempotency_key": error.idempotency_key,
                "job_id": error.job_id,
                "differing_fields": error.fields,
            }
            return Problem("idempotency_conflict", [str(error)], 2, details)
        case JobNotFound():
            return Problem("job_not_found", [str(error)], 1, {"job_id": error.job_id})
        case CampaignNotFound():
            return Problem("campaign_not_found", [str(error)], 1, {"name": error.name})
        case CampaignCanceled():
            return Problem("campaign_canceled", [str(error)], 1, {"name": error.name})
        case AmbiguousJobId():
            return Problem("ambiguous_job_id", [str(error)], 2, {"candidates": error.candidates})
        case OSError():
            return Problem("os", [str(error)], 1)
        case EnqueueUnknown():
            hint = ""
            if len(error.job_ids) == 1:
                hint = f"To check whether it is enqueued: {NAME} show {error.job_ids[0]}"
            return Problem("enqueue_unknown", [str(error)], 4, {"job_ids": error.job_ids}, hint)
        case QueueUnavailable():
            return Problem("queue_unavailable", [str(error)], 4)
    where = extract_tb(error.__traceback__)[-1]
    text = (
        f"this is a bug in {NAME}, please report it: {type(error).__name__} in "
        f"{Path(where.filename).name}, line {where.lineno}: {error}"
    )
    return Problem("internal", [text], 1)


def _discard_output() -> None:
    """Redirect standard output to os.devnull, so that flushing it at exit raises no error."""
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    try:
        number = version(NAME)
    except PackageNotFoundError:
        number = "(unknown version: the package is not installed)"
    click.echo(f"{NAME} {number}")
    ctx.exit()


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def commands() -> None:
    """Send Harasocial payload messages in the background, and manage them."""


for _command in (
    send,
    enqueue,
    worker,
    flower,
    results,
    errors,
    show,
    stats,
    watch,
    campaigns,
    campaign,
    replay,
    cancel,
    pause,
    resume,
    rate,
    audit,
    export,
    check,
    sandbox,
    demo,
):
    commands.add_command(_command)


def main(arguments: Sequence[str] | None = None, *, program: str = NAME) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: default to the arguments of this process.
        program: the command's name in help and error messages.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # Print the escape of a character that the terminal cannot encode, instead of failing.
        sys.stdout.reconfigure(errors="backslashreplace")
    # None is click's default: color on a terminal only. See https://no-color.org
    commands.main(arguments, program, color=False if os.environ.get("NO_COLOR") else None)
