"""The wheel of this tree, and an environment in which it is installed."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import venv

import pytest
from support.parts import ROOT, run_well
from support.wheels import Built, Installed


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The wheel, built from a copy of the tree, so that earlier builds cannot affect it."""
    source = tmp_path_factory.mktemp("source") / "copy"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    )
    log = run_well(
        *(sys.executable, "-m", "pip", "wheel", "--verbose", "--wheel-dir", source / "dist"),
        # Built with the installed setuptools: nothing is downloaded.
        *("--no-deps", "--no-index", "--no-build-isolation", "."),
        cwd=source,
    )
    (path,) = (source / "dist").iterdir()
    return Built(path, log)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Built) -> Installed:
    """An environment with the wheel that uses the dependencies installed here."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    made = Installed(folder)
    run_well(
        *(sys.executable, "-m", "pip", "--python", made.python, "install", "--quiet"),
        *("--no-deps", "--no-index", wheel.path),
        cwd=folder,
    )
    # Python ignores .pth files in a folder that is itself added by a .pth file, so an editable
    # installation of the package is not found.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (made.site_packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return made
