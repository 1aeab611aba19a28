"""The Celery worker that sends: `celery -A harasocial_dispatch.worker worker`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Through the parent: a bare `import worker` fails here, instead of loading everything twice.
from .. import worker as _worker  # noqa: F401

if TYPE_CHECKING:
    from .celery_app import app

__all__ = ["app"]


def __getattr__(name: str) -> Any:
    # Made when Celery asks for it: parts of this package that need no settings, such as the
    # classification, can be imported without any.
    if name == "app":
        from .celery_app import app  # noqa: PLC0415 - reading the settings is put off on purpose

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
