"""Name lookups in threads of their own: the system's resolver cannot be told when to give up."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from ..interruptible_executor import InterruptibleExecutor

#: Lookups under way at once. One that hangs occupies a thread until the resolver gives up.
_MAX_LOOKUPS = 8

#: What `socket.getaddrinfo` finds: family, type, protocol, canonical name, socket address.
Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]


class Lookup:
    """Looks up host names without blocking the event loop."""

    def __init__(self) -> None:
        self._threads = InterruptibleExecutor(_MAX_LOOKUPS, "lookup")

    async def addresses(self, host: str, port: int) -> list[Found]:
        """Return the addresses of `host`. If canceled before its turn, nothing is looked up.

        Raises:
            OSError, UnicodeError: the name has none, or is not a name.
        """
        # Of its addresses, the types know several exact shapes.
        look_up: Any = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        found: list[Found] = await loop.run_in_executor(self._threads, look_up)
        return found

    def close(self) -> None:
        """Start no more lookups. Does not wait for those under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
