"""The same interface for the test client of every web framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

#: The type of the fixtures `away` and `halted`: an outage of Redis during a block.
Outage = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Answer:
    """The response of a web app."""

    status: int
    headers: Mapping[str, str]
    json: Any


@dataclass(frozen=True)
class WebApp:
    """One of the examples, with the same interface for every framework's client."""

    framework: str
    #: (method, path, body, headers) → response
    request: Callable[[str, str, bytes, dict[str, str]], Answer]

    def get(self, path: str) -> Answer:
        return self.request("GET", path, b"", {})

    def post(self, body: bytes, idempotency_key: str | None = None) -> Answer:
        """POST JSON to /messages."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return self.request("POST", "/messages", body, headers)
