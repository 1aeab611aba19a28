"""The broker: Celery's settings and transport, and the doorbell that wakes a worker.

Importing this package does not import Celery, which takes longer than everything else that a web
app imports for its producer. The modules `separate_celery` and `reachability` do.
"""

from __future__ import annotations

from .doorbell import Doorbell
from .message import DISPATCH_TASK, queue_name

__all__ = ["DISPATCH_TASK", "Doorbell", "queue_name"]
