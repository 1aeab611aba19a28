"""Rules of the repository: names of files, and the targets of the Makefile.

import-linter checks which part may import which: see pyproject.toml.
"""

from __future__ import annotations

import re
from pathlib import Path

from support.parts import PARTS, ROOT, files_of, run_well

#: Generic names that do not describe the content of a file.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}

SOURCES = [path for folder in PARTS.values() for path in files_of(folder, "*.py")]


def named(path: Path) -> str:
    """Return `path` relative to the repository."""
    return path.relative_to(ROOT).as_posix()


def test_files_have_meaningful_names() -> None:
    """No file has a generic name such as `utils`."""
    assert [named(path) for path in SOURCES if path.stem.strip("_") in EMPTY_NAMES] == []


def test_every_command_of_make_help_exists() -> None:
    """Each line names a target that make can build, and its programs exist."""
    listed = re.findall(r"^  make (\S+) ", run_well("make", "help", cwd=ROOT), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "bench", "clean"} <= set(listed)

    for target in listed:
        plan = run_well("make", "--dry-run", target, cwd=ROOT)
        files = re.findall(r"\b(?:tests|docker|examples)/[\w/.-]+", plan)
        assert [file for file in files if not (ROOT / file).exists()] == [], plan
