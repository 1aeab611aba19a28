"""The Celery application: one task, `harasocial.dispatch`, run by doorbells.

Celery starts processes, spreads doorbells over hosts, shuts down warmly and shows all this in
Flower. Which jobs there are, and where they stand, only the ledger knows.
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

#: For connecting to the broker, and for each of its answers. The main process does nothing else
#: meanwhile, not even stop.
BROKER_TIMEOUT_SECONDS = 2.0

#: How long (seconds) a child process that is to end waits for the main process to read that its
#: last task has ended. If a stop begins just as a task is handed over, that is never read, and
#: billiard waits for 30 seconds. All that is lost with it is a line of Celery's log.
LAST_MESSAGE_TIMEOUT_SECONDS = 3.0

#: Objects made, less those freed, between two collections of the youngest generation. Python's
#: default (700) lets each batch of jobs cause several.
GARBAGE_THRESHOLD = 20_000

#: Entry points, by the name of the command they extend: see setup.cfg.
_COMMAND_EXTENSIONS = "harasocial_dispatch.celery_commands"


def _settings_or_exit() -> Settings:
    try:
        return Settings.from_environment()
    except SettingsError as error:
        # Celery shows an exception of this import as a traceback; an exit it lets through.
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None


settings = _settings_or_exit()
app = SeparateCelery(
    "harasocial_dispatch",
    settings,
    socket_timeout=BROKER_TIMEOUT_SECONDS,
    socket_connect_timeout=BROKER_TIMEOUT_SECONDS,
    socket_keepalive=True,
    # How soon the main process notices that an idle connection is dead: it drops a connection
    # whose answer is late by this much, or that leaves two pings unanswered.
    health_check_interval=2,
    # A doorbell that is lost with its worker is rung again by the sweep, so a second copy of each,
    # written and deleted, would be kept for nothing.
    ack_emulation=False,
)
app.conf.update(
    # A doorbell carries no job, so nothing is lost with it.
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    # Shows each dispatch in Flower, with its counts, from the start.
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
        # The worker starts without Redis too. Then every script refuses keys of another version.
        pass
    finally:
        ledger.close()


@app.task(name=DISPATCH_TASK, ignore_result=True)
def dispatch() -> dict[str, int]:
    """Send what is ready; return how many jobs ended how."""
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
    """Refuse to start what cannot work, and say why."""
    pool = f"{options.get('pool_cls') or conf.worker_pool}"
    try:
        if "gevent" in pool or "eventlet" in pool:
            raise SettingsError(
                "the pools gevent and eventlet are not supported: a process already keeps "
                "HARASOCIAL_IN_FLIGHT calls in flight on its own threads; use prefork (the "
                "default), threads or solo"
            )
        Tokens(settings)
        _check_version()
        metrics.serve()
    except SettingsError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(2) from None
    if settings.log_format == "json":
        # No banner, which is none.
        instance.quiet = True
    shutdown.reset()


@signals.worker_process_init.connect
def _collect_garbage_rarely(**_: Any) -> None:
    """Spend less on cyclic garbage: a job makes hardly any, and its objects live until it ends."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


@signals.worker_process_init.connect
def _bound_the_exit(**_: Any) -> None:
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
def _stop_telling(**_: Any) -> None:
    flush_log()
    flush_page_log()
    events.stop()


def _extend_celery_command() -> None:
    """Call the functions that extend the command of Celery that imports this module.

    `celery -A harasocial_dispatch.worker flower` is extended by the Flower pages of this package.
    Flower has no setting for extensions, and builds its application right after this import.
    """
    context = click.get_current_context(silent=True)
    if context is None or context.command.name != "celery" or context.invoked_subcommand is None:
        return
    for extension in entry_points(group=_COMMAND_EXTENSIONS, name=context.invoked_subcommand):
        extension.load()(app, settings)


_extend_celery_command()
