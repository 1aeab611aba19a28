"""`worker`: Celery's own worker command, with what suits us set beforehand."""

from __future__ import annotations

import click

from .options import examples

#: Celery's own features that make every worker talk to every other; ours meet in the ledger.
_DEFAULTS = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")


@click.command(
    context_settings={"ignore_unknown_options": True},
    add_help_option=False,
    epilog=examples("worker", "worker --concurrency 4 -l WARNING", "worker --pool threads"),
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTIONS]...")
def worker(options: tuple[str, ...]) -> None:
    """Run a worker that sends what is enqueued. Ctrl-C or SIGTERM finishes the calls in flight.

    This is `celery -A harasocial_dispatch.worker worker`; all options are Celery's.
    """
    # Imported here: it reads the settings, and takes a moment.
    from ..worker import app  # noqa: PLC0415

    raise SystemExit(app.start(["worker", *_DEFAULTS, *options]))
