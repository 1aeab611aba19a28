"""The Celery application: one task, `harasocial.dispatch`, run by doorbells.

Celery starts processes, distributes doorbells over hosts, handles warm shutdown, and reports to
Flower. The jobs and their states are only in the ledger.
"""

from __future__ import annotations

import gc
import logging
import sys
from importlib.metadata import entry_points
from typing import Any

import billiard.pool
import click
from celery import signals

from ..broker import DISPATCH_TASK
from ..broker.separate_celery import SeparateCelery
from ..ledger import Ledger
from ..schemas import QueueUnavailable, Settings, SettingsError
from . import shutdown
from .engine import Engine
from .observe.events import JobEvents
from .observe.logs import format_logs
from .observe.metrics import Metrics
from .observe.page_log import flush_page_log
from .observe.recorded import chain, flush_log, log
from .sweeper import Sweeper
from .tokens import Tokens

#: Timeout for connecting to the broker, and for each reply. Meanwhile the main process is blocked
#: and cannot stop.
BROKER_TIMEOUT_SECONDS = 2.0

#: How long a stopping child process waits for the main process to read the end of its last task. If
#: the shutdown begins while a task is delivered, the main process never reads it, and billiard
#: waits 30 seconds by default. A timeout loses only one line of Celery's log.
LAST_MESSAGE_TIMEOUT_SECONDS = 3.0

#: Allocations minus deallocations between two collections of the youngest generation. With Python's
#: default (700), each batch of jobs causes several collections.
GARBAGE_THRESHOLD = 20_000

#: The group of entry points that extend Celery commands. The name of an entry point is the command.
#: See setup.cfg.
_COMMAND_EXTENSIONS = "harasocial_dispatch.celery_commands"


def _settings_or_exit() -> Settings:
    try:
        return Settings.from_environment()
    except SettingsError as error:
        # Celery prints a traceback for an exception during this import, but not for SystemExit.
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


settings = _settings_or_exit()
app = SeparateCelery(
    "harasocial_dispatch",
    settings,
    socket_timeout=BROKER_TIMEOUT_SECONDS,
    socket_connect_timeout=BROKER_TIMEOUT_SECONDS,
    socket_keepalive=True,
    # Detects a dead idle connection: the main process drops a connection if a reply takes longer
    # than this, or after two pings without a reply.
    health_check_interval=2,
    # Do not store a second copy of each unacknowledged doorbell. If a doorbell is lost with its
    # worker, the sweep rings again.
    ack_emulation=False,
)
app.conf.update(
    # A lost doorbell loses no job.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    # Flower shows each dispatch with its counts.
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
)

events = JobEvents(app, settings)
metrics = Metrics(settings)


observe = chain(log, metrics.observe, events.observe)
engine = Engine(settings, observe)
sweeper = Sweeper(settings, observe, metrics.observe_repairs)


def _check_version() -> None:
    ledger = Ledger(settings, timeout_seconds=2.0)
    try:
        ledger.check_version()
    except QueueUnavailable:
        # The worker also starts without Redis. Every script checks the version of the keys anyway.
        pass
    finally:
        ledger.close()


@app.task(name=DISPATCH_TASK, ignore_result=True)
def dispatch() -> dict[str, int]:
    """Send ready jobs. Return the number of jobs by resulting state."""
    with shutdown.sigterm_deferred():
        counts = engine.dispatch()
        metrics.flush()
    return counts


@signals.after_setup_logger.connect
@signals.after_setup_task_logger.connect
def _format_logs(logger: logging.Logger, **_: Any) -> None:
    format_logs(logger, settings.log_format)


@signals.celeryd_init.connect
def _check(instance: Any, conf: Any, options: dict[str, Any], **_: Any) -> None:
    """Exit with an error if the worker cannot work with these options and settings."""
    pool = f"{options.get('pool_cls') or conf.worker_pool}"
    try:
        if "gevent" in pool or "eventlet" in pool:
            raise SettingsError(
                "the pools gevent and eventlet are not supported: a process already keeps "
                "HARASOCIAL_IN_FLIGHT calls in flight on its own event loop; use prefork (the "
                "default), threads or solo"
            )
        Tokens(settings)
        _check_version()
        metrics.serve()
    except SettingsError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None
    if settings.log_format == "json":
        # No banner: it is not JSON.
        instance.quiet = True
    shutdown.reset()


@signals.worker_init.connect
def _collect_garbage_rarely(**_: Any) -> None:
    """Collect garbage less often: a job creates almost no cycles.

    Child processes inherit this. The collector does not visit frozen objects, so the children share
    their memory.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


@signals.worker_process_init.connect
def _limit_exit_wait(**_: Any) -> None:
    billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = round(
        LAST_MESSAGE_TIMEOUT_SECONDS / billiard.pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL
    )


@signals.worker_process_init.connect
def _report_metrics(**_: Any) -> None:
    metrics.report()


@signals.after_task_publish.connect(sender=DISPATCH_TASK)
def _count_doorbell(**_: Any) -> None:
    metrics.count_doorbell()


@signals.worker_ready.connect
def _start_sweeping(sender: Any, **_: Any) -> None:
    events.hostname = sender.hostname
    sweeper.start()


@signals.worker_shutting_down.connect
def _stop_claiming(**_: Any) -> None:
    shutdown.request()


@signals.worker_shutdown.connect
def _stop_sweeping(**_: Any) -> None:
    sweeper.stop()
    flush_log()
    flush_page_log()
    events.stop()
    metrics.stop()


@signals.worker_process_shutdown.connect
def _stop_reporting(**_: Any) -> None:
    flush_log()
    flush_page_log()
    events.stop()


def _extend_celery_command() -> None:
    """Call the entry points that extend the running Celery command.

    The Flower pages of this package extend `celery -A harasocial_dispatch.worker flower`. Flower
    has no setting for extensions, and it creates its application right after this import.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.command.name != "celery" or context.invoked_subcommand is None:
        return
    for extension in entry_points(group=_COMMAND_EXTENSIONS, name=context.invoked_subcommand):
        extension.load()(app, settings)


_extend_celery_command()
