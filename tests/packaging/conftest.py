"""The wheel of this tree, and an environment of its own that it is installed into."""

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
    """The wheel, built from a copy, so that no earlier build gets into it and none is left here."""
    source = tmp_path_factory.mktemp("source") / "copy"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    )
    log = run_well(
        *(sys.executable, "-m", "pip", "wheel", "--verbose", "--wheel-dir", source / "dist"),
        # Built with the setuptools at hand: nothing is fetched.
        *("--no-deps", "--no-index", "--no-build-isolation", "."),
        cwd=source,
    )
    (path,) = (source / "dist").iterdir()
    return Built(path, log)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Built) -> Installed:
    """An environment that has the wheel from its file, and borrows what the package depends on."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    made = Installed(folder)
    run_well(
        *(sys.executable, "-m", "pip", "--python", made.python, "install", "--quiet"),
        *("--no-deps", "--no-index", wheel.path),
        cwd=folder,
    )
    # Python does not follow the .pth files of a folder that is named in one, so an editable
    # installation of the package stays out of sight.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (made.site_packages / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return made
