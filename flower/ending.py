"""SIGTERM ends Flower, also where one of its threads waits for a broker that says nothing."""

from __future__ import annotations

import os
import threading
from typing import Any

from flower import command

#: How long (seconds) Flower may take to end by itself. All it has is in memory and goes anyway.
_PATIENCE_SECONDS = 5.0


def end_in_time() -> None:
    """Have Flower's own handler of SIGTERM, which ends it in order, followed by an end for sure."""
    in_order = command.sigterm_handler

    def handler(signum: int, frame: Any) -> None:
        for_sure = threading.Timer(_PATIENCE_SECONDS, os._exit, (0,))
        for_sure.daemon = True
        for_sure.start()
        in_order(signum, frame)

    command.sigterm_handler = handler
