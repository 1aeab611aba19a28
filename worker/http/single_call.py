"""One call, made at once: for commands that try a token or look at the endpoint.

It takes the way that a worker's calls take, so what it shows is what a worker would meet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ...schemas import Settings
from .client import WATCH_EVERY_SECONDS, Client
from .endpoint import Endpoint
from .reply import CallFailed, Reply


def call_once(settings: Settings, body: Mapping[str, Any], token: str) -> Reply | CallFailed:
    """POST `body` and return how that ended. Takes `call_deadline_seconds` at most.

    Raises:
        SettingsError: the settings ask for what this Python cannot do.
    """
    endpoint = Endpoint(settings)
    client = Client(
        endpoint,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        read_timeout_seconds=settings.read_timeout_seconds,
    )
    endings: list[Reply | CallFailed] = []

    def end(ending: Reply | CallFailed) -> None:
        endings.append(ending)
        client.wake()

    deadline = time.monotonic() + settings.call_deadline_seconds
    try:
        client.post(endpoint.request(body, token), deadline, end)
        while not endings:
            client.wait(WATCH_EVERY_SECONDS)
        return endings[0]
    finally:
        client.close()
