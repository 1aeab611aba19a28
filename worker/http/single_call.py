"""Make a single call, for commands that test a token or the endpoint.

It uses the same code as a worker, so it gets the same results.
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
    """POST `body` and return the end of the call. Takes at most `call_deadline_seconds`.

    Raises:
        SettingsError: this version of Python does not support the settings.
    """
    endpoint = Endpoint(settings)
    client = Client(endpoint, settings)
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
