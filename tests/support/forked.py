"""Console scripts in processes that are forked from one process that has imported their libraries.

The tests start hundreds of workers, Flowers and commands. A new interpreter needs up to half a
second of CPU time only for imports. Tests of the start itself use a new interpreter.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol

#: The module of each console script. Its function `main` runs the script.
_SCRIPTS = {"celery": "celery.__main__", "harasocial-dispatch": "harasocial_dispatch.cli"}

#: The folder that pytest adds to the path of modules.
_TESTS = Path(__file__).parents[1]

#: Forks from a process with one thread, unlike the process that runs the tests.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        *("harasocial_dispatch.producer", "harasocial_dispatch.cli"),
        *("harasocial_dispatch.worker.engine", "harasocial_dispatch.worker.observe.metrics"),
        *("celery.__main__", "celery.bin.celery", "celery.apps.worker"),
        *("celery.worker.consumer", "celery.concurrency.prefork"),
        *("celery.app.amqp", "celery.app.control", "celery.app.events", "celery.app.log"),
        "flower.command",
    ]
)


class Script(Protocol):
    """A running console script: the common methods of `subprocess.Popen` and `ForkedScript`."""

    @property
    def pid(self) -> int:
        """The id of the process."""

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit status."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""

    def terminate(self) -> None:
        """Send SIGTERM."""

    def kill(self) -> None:
        """Send SIGKILL."""


class ForkedScript:
    """A console script in a forked process."""

    def __init__(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        output_file: Path,
        error_file: Path,
        *,
        own_session: bool = False,
    ) -> None:
        path = [entry for entry in sys.path if not Path(entry).is_relative_to(_TESTS)]
        self._process = processes.Process(
            target=_run,
            args=(list(words), environment, path, folder, output_file, error_file, own_session),
            # The name that the main process has in Celery's log.
            name="MainProcess",
            daemon=True,
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("a forked script", timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start_script(
    words: Sequence[str],
    environment: dict[str, str],
    folder: Path,
    log_file: Path,
    *,
    own_session: bool = False,
    prefix: Sequence[str] = (),
    new_interpreter: bool = False,
) -> Script:
    """Start a console script whose output is appended to a file.

    Args:
        words: the name of the script, and its arguments.
        prefix: a command that runs the script in a new interpreter.
        new_interpreter: start a new interpreter. A different PYTHONPATH requires one too.
    """
    log_file.touch()  # The caller may read it at once.
    elsewhere = environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
    if not (prefix or new_interpreter or elsewhere):
        return ForkedScript(words, environment, folder, log_file, log_file, own_session=own_session)
    code = f"from {_SCRIPTS[words[0]]} import main; main()"
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", code, *words[1:]],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=own_session,
        )


def run_script(
    words: Sequence[str], environment: dict[str, str], folder: Path, *, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a console script, and return its exit status, standard output and standard error."""
    with tempfile.TemporaryDirectory() as files:
        output_file, error_file = Path(files, "stdout"), Path(files, "stderr")
        script = ForkedScript(words, environment, folder, output_file, error_file)
        try:
            status = script.wait(timeout)
        finally:
            script.kill()
        output, errors = output_file.read_text(), error_file.read_text()
    return subprocess.CompletedProcess(words, status, output, errors)


def _run(
    words: list[str],
    environment: dict[str, str],
    path: list[str],
    folder: Path,
    output_file: Path,
    error_file: Path,
    own_session: bool,
) -> None:
    """Make this process like that of a new interpreter, and run the script."""
    if own_session:
        os.setsid()
    for file, descriptor in ((output_file, 1), (error_file, 2)):
        with file.open("ab") as opened:
            os.dup2(opened.fileno(), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    sys.path[:] = ["", *path]
    try:
        import_module(_SCRIPTS[words[0]]).main()
    finally:
        # multiprocessing ends its processes without these.
        atexit._run_exitfuncs()
