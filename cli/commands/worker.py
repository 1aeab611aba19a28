"""`worker`: Celery's own worker command, with what suits us set beforehand."""

from __future__ import annotations

import click

from ..input.options import examples

#: Celery's own features that make every worker talk to every other; ours meet in the ledger.
_DEFAULTS = ("--without-gossip", "--without-mingle", "--loglevel", "INFO")


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples("worker", "worker --concurrency 4 -l WARNING", "worker -n second@%h")
    + """

\b
Often used, of Celery's own:
  --concurrency 4    processes (one a CPU), each with HARASOCIAL_IN_FLIGHT calls at once
  -l WARNING         what is logged: DEBUG, INFO (the default), WARNING or ERROR
  -n second@%h       a name of its own, for a second worker on one host
  --pool threads     threads in place of processes
All of them: celery -A harasocial_dispatch.worker worker --help
""",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTIONS]...")
def worker(options: tuple[str, ...]) -> None:
    """Run a worker that sends what is enqueued.

    Ctrl-C or SIGTERM finishes the calls in flight; what waits is sent by the next worker.
    This is `celery -A harasocial_dispatch.worker worker`; all options are Celery's.
    """
    # Imported here: it reads the settings, and takes a moment.
    from ...worker import app  # noqa: PLC0415

    raise SystemExit(app.start(["worker", *_DEFAULTS, *options]))
