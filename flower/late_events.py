"""Ignore events of jobs that arrive late.

The processes of a worker send their events separately. The event of a retry may therefore arrive
after the event of the job's next attempt, which another process made. Flower would then show a sent
job as waiting for a retry forever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def ignore_late_events(events: Any) -> None:
    """Make Flower ignore an event if it already shows a later attempt of the same task.

    Args:
        events: Flower's receiver of events.
    """

    def add(event: Mapping[str, Any]) -> None:
        if not is_late(event, events.state.tasks):
            events.state.event(event)

    def on_event(event: Mapping[str, Any]) -> None:
        # As in Flower: only the thread of the event loop uses the state.
        events.io_loop.add_callback(add, event)

    events.on_event = on_event


def is_late(event: Mapping[str, Any], tasks: Mapping[str, Any]) -> bool:
    """Return whether a later attempt of the event's task is in `tasks`."""
    task_id, retries = event.get("uuid"), event.get("retries")
    if not isinstance(task_id, str) or not isinstance(retries, int) or task_id not in tasks:
        return False
    shown = tasks[task_id].retries
    return isinstance(shown, int) and retries < shown
