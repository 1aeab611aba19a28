"""The limit of open files: each call in flight needs a socket."""

from __future__ import annotations

import logging
import resource

#: Open files in addition to the calls: Redis, the broker, pipes, logs, imported modules.
_OTHER_FILES = 128

logger = logging.getLogger(__name__)


def raise_open_file_limit(in_flight: int) -> None:
    """Raise this process's soft limit if it is too low. Log a warning if that is not possible."""
    needed = in_flight + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    except (OSError, ValueError):  # macOS refuses some values below the hard limit
        allowed = soft
    if allowed < needed:
        logger.warning(
            "HARASOCIAL_IN_FLIGHT=%d needs %d open files, but at most %d are allowed: beyond "
            "that, calls fail with connection_failed; raise the limit (ulimit -n) or lower "
            "HARASOCIAL_IN_FLIGHT",
            in_flight,
            needed,
            allowed,
            extra={"action": "open_files_limit"},
        )
