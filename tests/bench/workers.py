"""The processes of a library's worker: start, suspend, resume, measure, kill."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from contenders import Contender

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def interpreter(contender: Contender) -> Path:
    """Return the interpreter where the library is installed."""
    if not contender.environment:
        return Path(sys.executable)
    return Path(sys.prefix) / "peers" / contender.environment / "bin" / "python"


class Workers:
    """All processes that a worker command starts. They are killed at the end."""

    def __init__(self, contender: Contender, environment: dict[str, str], log: Path) -> None:
        self._log = log
        self.started_at = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [interpreter(contender), *contender.worker],
                env=environment,
                cwd=Path(__file__).parent,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C only reaches the bench, which kills them
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        # They are killed: the data that they leave is in Redis, which is removed.
        while pids := [pid for pid, stat in self._processes().items() if stat[0] not in "ZX"]:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            time.sleep(0.01)
        self._process.wait()

    def check(self) -> None:
        """Raise if the worker has ended by itself."""
        if self._process.poll() is not None:
            raise RuntimeError(
                f"the worker ended, status {self._process.returncode}:\n{self.log()}"
            )

    def log(self) -> str:
        """Return the end of the worker's output."""
        return self._log.read_text(errors="replace")[-2000:]

    def suspend(self) -> None:
        """Suspend all processes (SIGSTOP)."""
        for pid in self._processes():
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume all processes (SIGCONT)."""
        for pid in self._processes():
            _signal(pid, signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Return the CPU time of all threads, and of ended children."""
        # The fields after the name: user and system time, of the process and of its ended
        # children.
        return (
            sum(sum(map(int, stat[11:15])) for stat in self._processes().values())
            / _TICKS_PER_SECOND
        )

    def _processes(self) -> dict[int, list[str]]:
        """Return the stat fields of each process of the tree, including ended processes.

        The tree has all descendants, and the processes of its session whose parent has ended.
        """
        stats = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            stats[int(folder.name)] = stat
        root = self._process.pid
        tree = {pid for pid, stat in stats.items() if pid == root or int(stat[3]) == root}
        while more := {pid for pid, stat in stats.items() if int(stat[1]) in tree} - tree:
            tree |= more
        return {pid: stats[pid] for pid in tree}


def _signal(pid: int, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.kill(pid, how)
