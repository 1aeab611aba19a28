"""`worker`: run Celery's worker command with default options for this package."""

from __future__ import annotations

import click

from ..input.options import examples

#: Disables Celery's communication between workers. They coordinate through the ledger.
_DEFAULTS = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples("worker", "worker --concurrency 4 -l WARNING", "worker -n second@%h")
    + """

\b
Common options of Celery:
  --concurrency 4    processes (default: one per CPU), each with HARASOCIAL_IN_FLIGHT calls
  -l WARNING         what is logged: DEBUG, INFO (the default), WARNING or ERROR
  -n second@%h       the worker's name; a second worker on a host needs another one
  --pool threads     threads instead of processes
All of them: celery -A harasocial_dispatch.worker worker --help
""",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTIONS]...")
def worker(options: tuple[str, ...]) -> None:
    """Run a worker that sends the enqueued jobs.

    After Ctrl-C or SIGTERM, it claims no more jobs and finishes the calls in flight. Other workers
    send the remaining jobs.
    This is `celery -A harasocial_dispatch.worker worker`, with all options of Celery.
    """
    # Imported here: it reads the settings and is slow to import.
    from ...worker import app  # noqa: PLC0415

    raise SystemExit(app.start(["worker", *_DEFAULTS, *options]))
