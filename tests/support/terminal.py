"""Run commands on a terminal, like a person."""

from __future__ import annotations

import os
import pty
import select
import time


def on_terminal(
    command: list[str], answer: str = "", timeout_seconds: float = 90, term: str = "dumb"
) -> tuple[str, int]:
    """Run a command on a new terminal. Return the visible output and the exit status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM=term, COLUMNS="200")
        os.execv(command[0], command)
    seen = b""
    deadline = time.monotonic() + timeout_seconds
    while select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # on Linux, the other end is closed
            break
        if not data:
            break
        seen += data
        if answer and seen.endswith(b"[y/N]: "):
            os.write(terminal, answer.encode())
            answer = ""
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    return seen.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(status)
