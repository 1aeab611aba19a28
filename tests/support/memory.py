"""Memory that a piece of code needs, measured where no other thread of the tests allocates."""

from __future__ import annotations

import sys
from pathlib import Path

from .processes import run_program

_TESTS = Path(__file__).parents[1]


def peak_bytes(code: str, *, imports: str, folder: str = ".") -> int:
    """Return the peak of the memory that `code` allocates, in a fresh interpreter.

    Args:
        imports: statements that run before the measurement.
        folder: under `tests`, whose modules `imports` may name.
    """
    program = "\n".join(
        (
            "import sys, tracemalloc",
            f"sys.path[:0] = {[str(_TESTS / folder), str(_TESTS)]!r}",
            imports,
            "tracemalloc.start()",
            code,
            "print(tracemalloc.get_traced_memory()[1])",
        )
    )
    done = run_program(sys.executable, input=program)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])
