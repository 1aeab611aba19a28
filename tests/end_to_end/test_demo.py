"""`harasocial-dispatch demo` works, and leaves no files and processes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from support.harness import present
from support.processes import run_program

PROGRAM = Path(sys.executable).parent / "harasocial-dispatch"


def test_the_demo_sends_explains_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Exit 0 within a minute; a table of results, three explained failures, no file, no process."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folder = tmp_path / "empty"
    folder.mkdir()

    ended = run_program(
        *(PROGRAM, "demo"),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"},
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    summary = re.search(
        r"309 jobs ended in (.*) s: \d+ POSTs, 281 messages accepted, 0 of them twice", ended.stdout
    )
    assert float(present(summary).group(1)) < 60
    assert re.search(r"^sent +281$", ended.stdout, re.MULTILINE)
    for code, count in {
        "10/2018278": 9,
        "551": 6,
        "http_503": 2,
        "http_401": 1,
        "timeout": 1,
    }.items():
        assert re.search(rf"^failed +{code} +{count} ", ended.stdout, re.MULTILINE), code
    # The command that it suggests is one that a shell finds.
    assert f"then run: {PROGRAM} check\n" in ended.stdout
    assert ended.stdout.count("    meaning: ") == 3
    assert ended.stdout.count("    what to do: ") == 3
    assert list(folder.iterdir()) == []
    assert list(temporary.iterdir()) == []
    worker = present(re.search(r"process (\d+)", ended.stdout))
    assert not Path(f"/proc/{worker.group(1)}").exists()
