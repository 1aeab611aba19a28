"""The thread that sends news of jobs to Flower, group by group, as far as the broker takes it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

from celery import Celery

from ..ledger import Ledger, impatient_transport
from ..schemas import Attempt, QueueUnavailable, Settings, State, from_ms
from .job_event import JobNews, events_of, news_of_record
from .pump import Done

#: Jobs in one message to the broker, at most.
GROUP_SIZE = 100
#: For connecting to the broker, and for its answer.
_BROKER_TIMEOUT_SECONDS = 2.0
#: How long (seconds) a broker that failed is left alone.
_PAUSE_AFTER_FAILURE_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Context(NamedTuple):
    """What Flower is to show as the job's worker and parent."""

    hostname: str
    dispatch_id: str | None


#: When what happened (seconds since the epoch): a recorded result, or the id of a job that the
#: ledger has to be asked about.
Item = tuple[Context, float, "Done | str"]


class News(Protocol):
    """Where the news comes from. `dropped` counts the jobs of which Flower was not told."""

    dropped: int

    def take(self) -> list[Item]:
        """Wait for news and return a group of it; an empty list once all is sent and it is over."""

    def drop(self, count: int) -> None:
        """Count jobs of which Flower was not told."""

    def pause(self, seconds: float) -> None:
        """Wait, unless the process is about to end."""


class EventSender:
    """Holds the connections to broker and ledger, and whether they work; for one thread."""

    def __init__(self, news: News, app: Celery, settings: Settings) -> None:
        self._news = news
        self._app = app
        self._settings = settings
        self._ledger: Ledger | None = None
        self._dispatchers: dict[str, Any] = {}
        self._broken = False
        self._told = 0

    def run(self) -> None:
        """Send until the process ends."""
        while group := self._news.take():
            try:
                self._send(group)
            except Exception as error:  # noqa: BLE001 - whatever happens to news, sending goes on
                self._failed(group, error)
            else:
                self._worked()
        self._disconnect()

    def _send(self, group: list[Item]) -> None:
        hostnames = dict.fromkeys(context.hostname for context, _, _ in group)
        for context, at_seconds, item in group:
            news = self._told_of(context, at_seconds, item)
            dispatcher = self._dispatcher(context.hostname)
            for event, fields in events_of(news) if news else ():
                dispatcher.send(event, **fields)
        for hostname in hostnames:
            self._dispatcher(hostname).flush(errors=False)

    def _told_of(self, context: Context, at_seconds: float, item: Done | str) -> JobNews | None:
        if isinstance(item, Done):
            return _news_of(item, at_seconds, context.dispatch_id)
        if self._ledger is None:
            self._ledger = Ledger(self._settings)
        try:
            record = self._ledger.reader.get(item)
        except QueueUnavailable:
            self._news.drop(1)
            return None
        if record is None:
            return None
        return news_of_record(record, at_seconds=at_seconds, dispatch_id=context.dispatch_id)

    def _dispatcher(self, hostname: str) -> Any:
        """Return Celery's event dispatcher, which gathers task events until it is flushed."""
        if hostname not in self._dispatchers:
            connection = self._app.connection_for_write(
                transport_options=impatient_transport(_BROKER_TIMEOUT_SECONDS)
            )
            self._dispatchers[hostname] = self._app.events.Dispatcher(
                connection,
                hostname=hostname or None,
                buffer_while_offline=False,
                buffer_group=frozenset({"task"}),
                buffer_limit=10 * GROUP_SIZE,
            )
        return self._dispatchers[hostname]

    def _disconnect(self) -> None:
        for dispatcher in self._dispatchers.values():
            dispatcher.close()
            dispatcher.connection.release()
        self._dispatchers.clear()

    def _failed(self, group: list[Item], error: Exception) -> None:
        self._news.drop(len(group))
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
        self._news.pause(_PAUSE_AFTER_FAILURE_SECONDS)

    def _worked(self) -> None:
        dropped = self._news.dropped
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
