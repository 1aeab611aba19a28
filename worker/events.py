"""Telling Flower of jobs: Celery events, sent in groups, from a thread that nothing waits for.

A job that fails, or waits for a retry, is shown; so is one that is sent after that, as Flower would
take it for a failure for ever. A job that is sent at once costs one look at its state. Where the
broker is slow or away, news is dropped and counted: Flower's memory is a convenience, the ledger
(and the Failures page) has it all.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from celery import Celery

from ..ledger import Ledger
from ..schemas import Attempt, QueueUnavailable, Settings, State, from_ms
from .job_event import JobNews, events_of, news_of_record
from .pump import Done

#: Jobs whose news waits to be sent, at most, per process.
MAX_WAITING = 10_000
#: Jobs in one message to the broker, at most.
_GROUP_SIZE = 100
#: How long (seconds) news waits for more, to be sent together.
_GATHER_SECONDS = 0.2
#: For connecting to the broker, and for its answer.
_BROKER_TIMEOUT_SECONDS = 2.0
#: How long (seconds) the thread leaves a broker alone that failed.
_PAUSE_AFTER_FAILURE_SECONDS = 2.0

logger = logging.getLogger(__name__)


class _Context(NamedTuple):
    """What Flower is to show as the job's worker and parent."""

    hostname: str
    dispatch_id: str | None


#: Something to tell: a recorded result, or the id of a job that the ledger has to be asked about.
_Item = tuple[_Context, float, "Done | str"]


class JobEvents:
    """Sends news of jobs to Flower. Safe to use before and after a fork, and from any thread.

    Args:
        app: whose broker, serializer and current task are used.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        # Absent from settings of an older kind: off.
        self._successes = bool(getattr(settings, "flower_successes", False))
        #: The name of this worker; Celery's main process tells it.
        self.hostname = ""
        #: Jobs of which Flower was not told, in this process.
        self.dropped = 0
        self._pid = 0
        self._start_lock = threading.Lock()
        self._stopping = threading.Event()

    def observe(self, batch: list[Done]) -> None:
        """Take a batch of recorded results. Never blocks, never raises."""
        news = [done for done in batch if self._is_news(done)]
        if news:
            self._put(news)

    def look_at(self, job_ids: Iterable[str]) -> None:
        """Take ids of jobs that the ledger itself moved on. Never blocks, never raises."""
        ids = list(job_ids)
        if ids:
            self._put(ids)

    def stop(self) -> None:
        """Send what waits, for a moment; then end the thread."""
        if self._pid != os.getpid():
            return
        self._stopping.set()
        with suppress(queue.Full):  # then the thread is awake anyway
            self._waiting.put_nowait(None)
        self._thread.join(_BROKER_TIMEOUT_SECONDS)

    def _is_news(self, done: Done) -> bool:
        if not done.held:
            return False
        state, claim = done.result.job_verdict.state, done.result.claim
        if state is State.SENT:
            return self._successes or claim.replayed or bool(claim.attempts)
        return state in (State.FAILED, State.RETRYING)

    def _put(self, news: Iterable[Done | str]) -> None:
        self._start_in_this_process()
        context, now = self._context(), time.time()
        for each in news:
            try:
                self._waiting.put_nowait((context, now, each))
            except queue.Full:
                self.dropped += 1

    def _context(self) -> _Context:
        task = self._app.current_worker_task
        request: Any = task.request if task is not None else None
        if request is None:
            return _Context(self.hostname, None)
        return _Context(request.hostname or self.hostname, request.id)

    def _start_in_this_process(self) -> None:
        # Neither a thread nor a connection survives Celery's fork.
        if self._pid == os.getpid() and not self._stopping.is_set():
            return
        with self._start_lock:
            if self._pid == os.getpid() and not self._stopping.is_set():
                return
            self._waiting: queue.Queue[_Item | None] = queue.Queue(MAX_WAITING)
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=_Sender(self, self._app, self._settings).run, name="events", daemon=True
            )
            self._pid = os.getpid()
            self._thread.start()

    def take(self) -> list[_Item]:
        """Wait for news and return a group of it; an empty list once all is sent and it is over."""
        group: list[_Item] = []
        while not group and not (self._stopping.is_set() and self._waiting.empty()):
            item = self._waiting.get()
            # None only wakes: the process is about to end.
            if item is not None:
                group.append(item)
                if self._waiting.qsize() < _GROUP_SIZE:
                    self._stopping.wait(_GATHER_SECONDS)
        with suppress(queue.Empty):
            while len(group) < _GROUP_SIZE:
                item = self._waiting.get_nowait()
                if item is not None:
                    group.append(item)
        return group

    def pause(self, seconds: float) -> None:
        """Wait, unless the process is about to end."""
        self._stopping.wait(seconds)


class _Sender:
    """The thread's own: the connections to broker and ledger, and whether they work."""

    def __init__(self, events: JobEvents, app: Celery, settings: Settings) -> None:
        self._events = events
        self._app = app
        self._settings = settings
        self._ledger: Ledger | None = None
        self._dispatchers: dict[str, Any] = {}
        self._broken = False
        self._told = 0

    def run(self) -> None:
        """Send until the process ends."""
        while group := self._events.take():
            try:
                self._send(group)
            except Exception as error:  # noqa: BLE001 - whatever happens to news, sending goes on
                self._failed(group, error)
            else:
                self._worked()
        self._disconnect()

    def _send(self, group: list[_Item]) -> None:
        hostnames = dict.fromkeys(context.hostname for context, _, _ in group)
        for context, at_seconds, item in group:
            news = self._news(context, at_seconds, item)
            dispatcher = self._dispatcher(context.hostname)
            for event, fields in events_of(news) if news else ():
                dispatcher.send(event, **fields)
        for hostname in hostnames:
            self._dispatcher(hostname).flush(errors=False)

    def _news(self, context: _Context, at_seconds: float, item: Done | str) -> JobNews | None:
        if isinstance(item, Done):
            return _news_of(item, at_seconds, context.dispatch_id)
        if self._ledger is None:
            self._ledger = Ledger(self._settings)
        try:
            record = self._ledger.lookup.get(item)
        except QueueUnavailable:
            return None
        return news_of_record(record, at_seconds=at_seconds) if record else None

    def _dispatcher(self, hostname: str) -> Any:
        """Return Celery's event dispatcher, which gathers task events until it is flushed."""
        if hostname not in self._dispatchers:
            connection = self._app.connection_for_write(
                transport_options={
                    "socket_timeout": _BROKER_TIMEOUT_SECONDS,
                    "socket_connect_timeout": _BROKER_TIMEOUT_SECONDS,
                    "retry_on_timeout": False,
                    "max_retries": 0,
                }
            )
            self._dispatchers[hostname] = self._app.events.Dispatcher(
                connection,
                hostname=hostname or None,
                buffer_while_offline=False,
                buffer_group=frozenset({"task"}),
                buffer_limit=10 * _GROUP_SIZE,
            )
        return self._dispatchers[hostname]

    def _disconnect(self) -> None:
        for dispatcher in self._dispatchers.values():
            dispatcher.close()
            dispatcher.connection.release()
        self._dispatchers.clear()

    def _failed(self, group: list[_Item], error: Exception) -> None:
        self._events.dropped += len(group)
        if not self._broken:
            logger.warning(
                "Flower cannot be told of failed jobs: %s; they stay on its Failures page",
                type(error).__name__,
                extra={"action": "events_unsent"},
            )
        self._broken = True
        try:
            self._disconnect()
        except Exception:  # noqa: BLE001 - a connection that cannot even be closed is left behind
            self._dispatchers.clear()
        self._events.pause(_PAUSE_AFTER_FAILURE_SECONDS)

    def _worked(self) -> None:
        dropped = self._events.dropped
        if dropped > self._told:
            logger.warning(
                "Flower was not told of %d jobs; they are on its Failures page",
                dropped - self._told,
                extra={"action": "events_dropped"},
            )
        self._told, self._broken = dropped, False


def _news_of(done: Done, at_seconds: float, dispatch_id: str | None) -> JobNews:
    result = done.result
    claim, outcome, verdict = result.claim, result.outcome, result.job_verdict
    attempts = claim.attempts
    if verdict.attempt_spent:
        attempts += (
            Attempt(
                at=from_ms(result.attempt_at_ms),
                duration_ms=result.attempt_duration_ms,
                http_status=outcome.http_status,
                error_code=outcome.error_code,
                error_message=outcome.error_message,
            ),
        )
    retrying = verdict.state is State.RETRYING
    return JobNews(
        job_id=claim.job_id,
        state=verdict.state,
        at_seconds=at_seconds,
        body=claim.body,
        error_code=outcome.error_code,
        error_message=outcome.error_message,
        attempts=attempts,
        duration_seconds=result.attempt_duration_ms / 1000,
        retry_at_seconds=at_seconds + verdict.delay_seconds if retrying else None,
        dispatch_id=dispatch_id,
    )
