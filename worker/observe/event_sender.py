"""The thread that sends job events to Flower, in groups."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Protocol

from celery import Celery

from ...broker.separate_celery import fail_fast_transport
from ...schemas import Attempt, State, from_ms
from .job_event import JobEvent, events_of
from .recorded import Recorded

#: Maximum jobs in one message to the broker.
GROUP_SIZE = 100
#: Timeout for connecting to the broker, and for its reply.
_BROKER_TIMEOUT_SECONDS = 2.0
#: Delay before the next attempt after the broker failed.
_PAUSE_AFTER_FAILURE_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Context(NamedTuple):
    """The worker and the parent task of the job, for Flower."""

    hostname: str
    dispatch_id: str | None


#: A recorded result, and the time when it was recorded (seconds since the epoch).
Item = tuple[Context, float, Recorded]


class Source(Protocol):
    """The source of job events. `dropped` is the number of job events that were not sent."""

    dropped: int

    def take(self) -> list[Item]:
        """Wait for job events. Return a group of them, or an empty list at the end."""

    def drop(self, count: int) -> None:
        """Count job events that were not sent."""

    def pause(self, seconds: float) -> None:
        """Wait, unless the process is ending."""


class EventSender:
    """Sends events, and keeps the connection to the broker. Used by one thread."""

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
            except Exception as error:  # noqa: BLE001 - the next group must still be sent
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
        """Return Celery's event dispatcher, which collects task events until it is flushed."""
        if hostname not in self._dispatchers:
            connection = self._app.connection_for_write(
                transport_options=fail_fast_transport(_BROKER_TIMEOUT_SECONDS)
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
                "job events for Flower cannot be sent: %s; its Failures page still has all jobs",
                type(error).__name__,
                extra={"action": "events_unsent"},
            )
        self._broken = True
        try:
            self._disconnect()
        except Exception:  # noqa: BLE001 - abandon a connection that cannot be closed
            self._dispatchers.clear()
        self._source.pause(_PAUSE_AFTER_FAILURE_SECONDS)

    def _worked(self) -> None:
        dropped = self._source.dropped
        if dropped > self._dropped_logged:
            logger.warning(
                "job events of %d jobs were not sent to Flower; its Failures page has these jobs",
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
