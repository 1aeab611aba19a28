"""Look up names in separate threads, because the system's resolver has no timeout."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from ..interruptible_executor import InterruptibleExecutor

#: Maximum concurrent lookups. A hanging lookup occupies a thread until the resolver returns.
_MAX_LOOKUPS = 8

#: A result of `socket.getaddrinfo`: family, type, protocol, canonical name, socket address.
Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class Lookup:
    """Looks up host names without blocking the event loop."""

    def __init__(self) -> None:
        self._threads = InterruptibleExecutor(_MAX_LOOKUPS, "lookup")

    async def addresses(self, host: str, port: int) -> list[Found]:
        """Return the addresses of `host`. A lookup that is canceled before it starts is not made.

        Raises:
            OSError, UnicodeError: the name has no address, or is invalid.
        """
        # typeshed has several exact types for the socket address.
        look_up: Any = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        found: list[Found] = await loop.run_in_executor(self._threads, look_up)
        return found

    def close(self) -> None:
        """Start no more lookups. Does not wait for running lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)
