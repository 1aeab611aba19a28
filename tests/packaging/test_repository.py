"""The rules of the tree: where things are, where a library is used, what the Makefile offers.

Which part may import which is checked by import-linter: see pyproject.toml.
"""

from __future__ import annotations

import re
from pathlib import Path

from support.parts import PARTS, ROOT, files_of, run_well

#: Names that say nothing of what is in a file.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}

SOURCES = [path for folder in PARTS.values() for path in files_of(folder, "*.py")]


def named(path: Path) -> str:
    """Return `path` as it is written in the repository."""
    return path.relative_to(ROOT).as_posix()


def test_files_have_telling_names() -> None:
    """No drawer for whatever fits nowhere."""
    assert [named(path) for path in SOURCES if path.stem.strip("_") in EMPTY_NAMES] == []


def test_every_command_of_make_help_exists() -> None:
    """Each line names a target that make can build, whose programs are there."""
    listed = re.findall(r"^  make (\S+) ", run_well("make", "help", cwd=ROOT), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "bench", "clean"} <= set(listed)

    for target in listed:
        plan = run_well("make", "--dry-run", target, cwd=ROOT)
        files = re.findall(r"\b(?:tests|docker|examples)/[\w/.-]+", plan)
        assert [file for file in files if not (ROOT / file).exists()] == [], plan
