"""The broker: Celery's settings and transport, and the doorbell that wakes a worker."""

from .doorbell import Doorbell
from .message import DISPATCH_TASK
from .separate_celery import SeparateCelery, impatient_transport, queue_name

__all__ = [
    "DISPATCH_TASK",
    "Doorbell",
    "SeparateCelery",
    "impatient_transport",
    "queue_name",
]
