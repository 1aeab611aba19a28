"""The command `harasocial-dispatch`.

Each command is a click command in a module of its theme, and is registered in `commands` below.
Exit status: 0 done; 1 the job or demo failed; 2 wrong usage or settings; 3 some rows were rejected;
4 Redis not reachable.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from io import TextIOWrapper
from pathlib import Path
from traceback import extract_tb
from typing import Any

import click

from ..schemas import (
    EnqueueUnknown,
    IdempotencyConflict,
    InvalidJob,
    JobNotFound,
    QueueUnavailable,
    SettingsError,
)
from .checking import check
from .demo import demo
from .enqueueing import enqueue
from .exporting import export
from .flowering import flower
from .looking import errors, results, show, stats
from .mending import cancel, replay
from .options import NAME
from .printing import complain
from .sandboxing import sandbox
from .sending import send
from .watching import watch
from .working import worker

#: What a shell reports of a program that Ctrl-C, or a closed pipe, ended: 128 + the signal.
_INTERRUPTED, _BROKEN_PIPE = 130, 141

_EPILOG = f"""\
Settings are read from the environment, or from a file .env: HARASOCIAL_REDIS_URL,
HARASOCIAL_TOKEN and others. '{NAME} check' tells whether they are fine.

Exit status: 0 done; 1 the job failed; 2 wrong usage or settings; 3 some rows were rejected;
4 Redis not reachable.

\b
Completion in the shell, for ~/.bashrc (likewise zsh_source and fish_source):
  eval "$(_HARASOCIAL_DISPATCH_COMPLETE=bash_source {NAME})"
"""


class _Commands(click.Group):
    """The group; the one place where errors become a message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are registered."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            complain("Interrupted.")
            ctx.exit(_INTERRUPTED)
        except BrokenPipeError:
            _discard_output()
            ctx.exit(_BROKEN_PIPE)
        except Exception as error:  # noqa: BLE001 - nobody above could say it better
            message, status = _explain(error)
            for line in message:
                complain(line)
            ctx.exit(status)


def _explain(error: Exception) -> tuple[list[str], int]:
    """Return the lines that tell a person of `error`, and the exit status."""
    match error:
        case InvalidJob():
            return [f"Error: {path}: {' '.join(texts)}" for path, texts in error.errors.items()], 2
        case SettingsError() | IdempotencyConflict():
            return [f"Error: {error}"], 2
        case JobNotFound() | OSError():
            return [f"Error: {error}"], 1
        case EnqueueUnknown(job_ids=[job_id]):
            return [f"Error: {error}", f"If it is enqueued, this finds it: {NAME} show {job_id}"], 4
        case QueueUnavailable():
            return [f"Error: {error}"], 4
    where = extract_tb(error.__traceback__)[-1]
    return [
        f"Error: this is a mistake in {NAME}, please report it: {type(error).__name__} in "
        f"{Path(where.filename).name}, line {where.lineno}: {error}"
    ], 1


def _discard_output() -> None:
    """Point standard output at nothing, so that what is still buffered makes no noise at exit."""
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
        number = "of an unknown version: it is not installed"
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
    """Send Harasocial payload messages in the background, and look after them."""


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
    replay,
    cancel,
    export,
    check,
    sandbox,
    demo,
):
    commands.add_command(_command)


def main() -> None:
    """Run the command line and exit with its status."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character gets its number instead of no output.
        sys.stdout.reconfigure(errors="backslashreplace")
    # click asks the terminal alone; None leaves it at that. https://no-color.org
    commands.main(prog_name=NAME, color=False if os.environ.get("NO_COLOR") else None)
