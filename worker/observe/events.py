"""Job events for Flower: Celery events, sent in groups from a background thread.

Flower gets an event for each job that fails or waits for a retry. It also gets one if such a job is
sent later, because otherwise Flower would show the job as failed forever. If the broker is slow or
not available, job events are dropped and counted. The ledger, and so the Failures page, has all
jobs.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import suppress
from typing import Any

from celery import Celery

from ...schemas import Settings, State
from .event_sender import GROUP_SIZE, Context, EventSender, Item
from .recorded import Recorded

#: Maximum number of job events waiting to be sent, per process.
MAX_WAITING = 10_000
#: How long a job event waits for others, to be sent together.
_BATCH_SECONDS = 0.2
#: How long a stopping process waits for the last job events to be sent.
_FINAL_SEND_TIMEOUT_SECONDS = 2.0


class JobEvents:
    """Sends job events to Flower. Thread-safe, and safe over fork.

    Args:
        app: its broker, serializer and current task are used.
    """

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._successes = settings.flower_successes
        #: The name of this worker, set by Celery's main process.
        self.hostname = ""
        #: Number of job events of this process that were not sent.
        self.dropped = 0
        self._pid = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def observe(self, batch: list[Recorded]) -> None:
        """Queue the job events of a batch of recorded results. Never blocks and never raises."""
        shown = [recorded for recorded in batch if self._is_shown(recorded)]
        if shown:
            self._put(shown)

    def stop(self) -> None:
        """Send the queued job events, with a timeout. Then end the thread."""
        if self._pid != os.getpid():
            return
        self._stopping.set()
        self._waiting.put(None)
        self._thread.join(_FINAL_SEND_TIMEOUT_SECONDS)

    def _is_shown(self, recorded: Recorded) -> bool:
        if not recorded.held:
            return False
        state, claim = recorded.result.job_verdict.state, recorded.result.claim
        if state is State.SENT:
            return self._successes or claim.replayed or bool(claim.attempts)
        return state in (State.FAILED, State.RETRYING)

    def _put(self, batch: list[Recorded]) -> None:
        try:
            self._start_in_this_process()
        except RuntimeError:  # the process is ending, and no thread can be started
            return
        context, now = self._context(), time.time()
        for recorded in batch:
            if self._waiting.qsize() >= MAX_WAITING:
                self.drop(1)
            else:
                self._waiting.put((context, now, recorded))

    def _context(self) -> Context:
        task = self._app.current_worker_task
        request: Any = task.request if task is not None else None
        if request is None:
            return Context(self.hostname, None)
        return Context(request.hostname or self.hostname, request.id)

    def _start_in_this_process(self) -> None:
        # Threads and connections do not survive Celery's fork.
        if self._pid == os.getpid() and not self._stopping.is_set():
            return
        with self._lock:
            if self._pid == os.getpid() and not self._stopping.is_set():
                return
            self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=EventSender(self, self._app).run, name="events", daemon=True
            )
            self._pid = os.getpid()
            self._thread.start()

    def take(self) -> list[Item]:
        """Wait for job events; return a group of them, or an empty list at the end."""
        group: list[Item] = []
        while not group and not (self._stopping.is_set() and self._waiting.empty()):
            item = self._waiting.get()
            # None only wakes this thread when the process is ending.
            if item is not None:
                group.append(item)
                if self._waiting.qsize() < GROUP_SIZE:
                    self._stopping.wait(_BATCH_SECONDS)
        with suppress(queue.Empty):
            while len(group) < GROUP_SIZE:
                item = self._waiting.get_nowait()
                if item is not None:
                    group.append(item)
        return group

    def drop(self, count: int) -> None:
        """Count job events that were not sent."""
        with self._lock:
            self.dropped += count

    def pause(self, seconds: float) -> None:
        """Wait, unless the process is about to end."""
        self._stopping.wait(seconds)
