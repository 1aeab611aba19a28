"""The Celery worker that sends jobs: `celery -A harasocial_dispatch.worker worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Import through the parent package, so that a bare `import worker` fails here instead of loading
# every module twice.
from .. import worker as _worker  # noqa: F401

if TYPE_CHECKING:
    from .celery_app import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    # The application is created on demand, because other parts of this package, such as the
    # classification, must be importable without settings.
    if name == "app":
        from .celery_app import app  # noqa: PLC0415 - reads the settings, so it is imported late

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
