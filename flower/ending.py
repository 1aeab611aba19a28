"""Stop Flower within seconds of SIGTERM, even if a thread waits for a broker that hangs."""

from __future__ import annotations

import os
import threading
from typing import Any

from flower import command

#: Timeout for Flower's normal exit. Flower keeps its state only in memory.
_EXIT_TIMEOUT_SECONDS = 5.0


def end_in_time() -> None:
    """Force an exit some seconds after Flower's own SIGTERM handler has started."""
    flowers_handler = command.sigterm_handler

    def handler(signum: int, frame: Any) -> None:
        forced_exit = threading.Timer(_EXIT_TIMEOUT_SECONDS, os._exit, (0,))
        forced_exit.daemon = True
        forced_exit.start()
        flowers_handler(signum, frame)

    command.sigterm_handler = handler
