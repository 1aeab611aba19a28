"""What setup.cfg says of the parts, and running programs that must not notice this tree."""

from __future__ import annotations

import os
import subprocess
from configparser import ConfigParser
from pathlib import Path

#: The top of the repository.
ROOT = Path(__file__).parents[2]

SETUP_CFG = ConfigParser()
SETUP_CFG.read(ROOT / "setup.cfg", encoding="utf-8")

#: The folder of each part, by the dotted name under which it is installed.
PARTS = {
    name.strip(): ROOT / folder.strip()
    for name, folder in (
        line.split("=") for line in SETUP_CFG["options"]["package_dir"].strip().split("\n")
    )
}

#: Every dotted name that is installed: the parts and the packages below them.
PACKAGES = SETUP_CFG["options"]["packages"].split()

#: Seconds that any program started here may take.
DEADLINE_SECONDS = 60.0


def folder_of(package: str) -> Path:
    """Return where the source of `package`, such as `harasocial_dispatch.ledger.lua`, is."""
    top, part, *below = package.split(".")
    return PARTS[f"{top}.{part}"].joinpath(*below)


def files_of(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files at any depth in `folder`, without what Python and editors leave there."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    ]


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in an environment that does not change what Python finds."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "HARASOCIAL_", "DIST_EXTRA_CONFIG"))
    }
    return subprocess.run(
        command,
        cwd=cwd,
        env=kept | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
    )


def run_well(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program that must succeed; return what it printed."""
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, f"{Path(command[0]).name} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
