"""The broker: Celery's settings and transport, and the doorbell that wakes a worker.

Only the modules `separate_celery` and `reachability` import Celery, because that takes longer than
all other imports of a producer.
"""

from __future__ import annotations

from .doorbell import Doorbell
from .message import DISPATCH_TASK, queue_name

__all__ = ["DISPATCH_TASK", "Doorbell", "queue_name"]
