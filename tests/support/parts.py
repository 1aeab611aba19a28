"""The parts of the package from setup.cfg, and programs that must not use this source tree."""

from __future__ import annotations

import os
import subprocess
from configparser import ConfigParser
from pathlib import Path

from .processes import run_program

#: The top of the repository.
ROOT = Path(__file__).parents[2]

SETUP_CFG = ConfigParser()
SETUP_CFG.read(ROOT / "setup.cfg", encoding="utf-8")

#: Installed dotted name of each part → its folder.
PARTS = {
    name.strip(): ROOT / folder.strip()
    for name, folder in (
        line.split("=") for line in SETUP_CFG["options"]["package_dir"].strip().split("\n")
    )
}

#: Every installed package: the parts and their subpackages.
PACKAGES = SETUP_CFG["options"]["packages"].split()


def folder_of(package: str) -> Path:
    """Return the source folder of `package`, such as `harasocial_dispatch.ledger.lua`."""
    top, part, *below = package.split(".")
    return PARTS[f"{top}.{part}"].joinpath(*below)


def files_of(folder: Path, pattern: str = "*") -> list[Path]:
    """Return all files in `folder`, without temporary files of Python and editors."""
    return [
        path
        for path in sorted(folder.rglob(pattern))
        if path.is_file() and "__pycache__" not in path.parts and path.name[0] != "."
    ]


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program, in an environment that does not affect Python's imports."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "HARASOCIAL_", "DIST_EXTRA_CONFIG"))
    }
    return run_program(*command, cwd=cwd, env=kept | variables)


def run_well(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a program that must succeed. Return its output."""
    done = run(*command, cwd=cwd, **variables)
    assert done.returncode == 0, f"{Path(command[0]).name} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
