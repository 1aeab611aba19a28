"""Return the data of a running system as text, to search it for secrets."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.schemas import Settings

from .harness import eventually


def everything_in_redis(redis_url: str) -> str:
    """Return every key of every database with its value, one per line."""
    databases = redis.Redis.from_url(redis_url).info("keyspace")
    return "\n".join(
        f"{name} {key.decode('latin-1')} {value}"
        for name in databases
        for key, value in _entries(redis_url.rsplit("/", 1)[0] + "/" + name.removeprefix("db"))
    )


def _entries(redis_url: str) -> list[tuple[bytes, str]]:
    client: Any = redis.Redis.from_url(redis_url)
    read = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    # The repr of bytes shows printable ASCII, such as tokens, unchanged.
    return [(key, repr(read[client.type(key)](key))) for key in client.scan_iter(count=1000)]


class RedisTraffic:
    """Records every command that Redis receives, including those of scripts, with MONITOR."""

    def __init__(self, redis_url: str) -> None:
        parts = urlsplit(redis_url)
        self._received: list[bytes] = []
        self._socket = socket.create_connection((parts.hostname, parts.port or 6379))
        if parts.password:
            self._socket.sendall(f"AUTH {unquote(parts.password)}\r\n".encode())
        self._socket.sendall(b"MONITOR\r\n")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while piece := self._socket.recv(1 << 20):
            self._received.append(piece)

    def __enter__(self) -> RedisTraffic:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def text(self) -> str:
        """Return the commands so far."""
        return b"".join(self._received).decode("latin-1")


class CeleryEvents:
    """Records every event that workers send, as Flower receives it."""

    def __init__(self, settings: Settings) -> None:
        self.received: list[dict[str, Any]] = []
        self._app = SeparateCelery("events", settings)
        self._receiver: Any = self._app.events.Receiver(
            self._app.connection(), handlers={"*": self.received.append}, app=self._app
        )
        self._thread = threading.Thread(
            target=self._receiver.capture, kwargs={"wakeup": False}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> CeleryEvents:
        # Events from before the subscription are lost.
        with self._app.events.default_dispatcher(hostname="test") as dispatcher:
            eventually(lambda: dispatcher.send("ready") or self.received, what="the subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._receiver.connection.release()

    def text(self) -> str:
        """Return the events so far, one per line."""
        return "\n".join(map(repr, self.received))


def process_arguments() -> str:
    """Return the command line of every process of this machine, one per line."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes().replace(b"\0", b" ").decode("latin-1"))
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
    return "\n".join(lines)
