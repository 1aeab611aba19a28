"""Run programs until they end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

#: The command line of this package.
OURS = (sys.executable, "-c", "from harasocial_dispatch.cli import main; main()")
#: Celery's own command line, with the app of the worker.
CELERY = (sys.executable, "-m", "celery", "-A", "harasocial_dispatch.worker")
#: Name of a command → the program that runs it.
PROGRAMS = {"harasocial-dispatch": OURS, "celery": CELERY}


def run_program(
    *command: str | Path, check: bool = False, timeout_seconds: float = 270, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Return the exit status and the output of a program.

    Args:
        check: whether an exit status other than 0 raises an error.
        timeout_seconds: by default, a little less than the timeout of a test.
        options: others of `subprocess.run`.
    """
    return subprocess.run(
        command, check=check, timeout=timeout_seconds, capture_output=True, text=True, **options
    )
