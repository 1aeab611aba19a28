"""The request that every library makes, and the stored part of the reply."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

REDIS_URL = os.environ["BENCH_REDIS_URL"]
URL = os.environ["BENCH_API_URL"]
HEADERS = {
    "accept": "text/plain",
    "Authorization": f"Bearer {os.environ['BENCH_TOKEN']}",
    "Content-Type": "application/json-patch+json",
}
#: Maximum connections, for libraries with many concurrent calls.
CALLS_PER_PROCESS = int(os.environ.get("BENCH_CALLS_PER_PROCESS", "32"))
#: Retention of results: a day.
KEPT_SECONDS = 86400
#: Timeout for connecting, and for the reply.
TIMEOUT_SECONDS = (5, 15)


def body_of(message: dict[str, Any]) -> bytes:
    """Return the bytes to POST for a message."""
    return json.dumps(message).encode()


def accepted(status: int, content: bytes) -> dict[str, Any]:
    """Return the reply if the message was accepted. Raise otherwise."""
    reply: dict[str, Any] = json.loads(content)
    if status != 200 or reply["has_error"] or not reply["data"]["success"]:
        raise RuntimeError(f"refused: {status} {reply}")
    return reply


def session_of(aiohttp: Any) -> Any:
    """Return a session without a limit of connections. aiohttp's default limit is 100."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


def use_uvloop() -> None:
    """Run asyncio on uvloop, in the worker and in the producer."""
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
