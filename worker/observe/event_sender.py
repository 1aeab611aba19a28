"""The thread that sends job events to Flower, group by group, as far as the broker takes them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

from celery import Celery

from ...broker.separate_celery import impatient_transport
from ...schemas import Attempt, State, from_ms
from .job_event import JobEvent, events_of
from .recorded import Recorded

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


#: A recorded result, and when it was recorded (seconds since the epoch).
Item = tuple[Context, float, Recorded]


class Source(Protocol):
    """Where the job events come from. `dropped` counts those that were not sent."""

    dropped: int

    def take(self) -> list[Item]:
        """Wait for job events; return a group of them, or an empty list at the end."""

    def drop(self, count: int) -> None:
        """Count job events that were not sent."""

    def pause(self, seconds: float) -> None:
        """Wait, unless the process is about to end."""


class EventSender:
    """Holds the connection to the broker, and whether it works; for one thread."""

    def __init__(self, source: Source, app: Celery) -> None:
        self._source = source
        self._app = app
        self._dispatchers: dict[str, Any] = {}
        self._broken = False
        self._dropped_logged = 0

    def run(self) -> None:
        """Send until the process ends."""
        while group := self._source.take():
            try:
                self._send(group)
            except Exception as error:  # noqa: BLE001 - whatever happens to one group, the next is sent
                self._failed(group, error)
            else:
                self._worked()
        self._disconnect()

    def _send(self, group: list[Item]) -> None:
        hostnames = dict.fromkeys(context.hostname for context, _, _ in group)
        for context, at_seconds, recorded in group:
            dispatcher = self._dispatcher(context.hostname)
            for event, fields in events_of(_job_event(recorded, at_seconds, context.dispatch_id)):
                dispatcher.send(event, **fields)
        for hostname in hostnames:
            self._dispatcher(hostname).flush(errors=False)

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
        self._source.drop(len(group))
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
        self._source.pause(_PAUSE_AFTER_FAILURE_SECONDS)

    def _worked(self) -> None:
        dropped = self._source.dropped
        if dropped > self._dropped_logged:
            logger.warning(
                "Flower was not told of %d jobs; they are on its Failures page",
                dropped - self._dropped_logged,
                extra={"action": "events_dropped"},
            )
        self._dropped_logged, self._broken = dropped, False


def _job_event(recorded: Recorded, at_seconds: float, dispatch_id: str | None) -> JobEvent:
    result = recorded.result
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
    return JobEvent(
        job_id=claim.job_id,
        state=verdict.state,
        at_seconds=at_seconds,
        body=claim.body,
        error_code=outcome.error_code,
        error_message=outcome.error_message,
        attempts=attempts,
        duration_seconds=(result.attempt_duration_ms or 0) / 1000,
        retry_at_seconds=at_seconds + verdict.delay_seconds if retrying else None,
        dispatch_id=dispatch_id,
    )
