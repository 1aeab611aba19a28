"""A wheel of the package, and an environment where it is installed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from functools import cached_property
from pathlib import Path
from zipfile import ZipFile


@dataclass(frozen=True)
class Built:
    """A wheel, and the output of its build."""

    path: Path
    log: str

    @cached_property
    def files(self) -> dict[str, bytes]:
        """File name in the wheel → content."""
        with ZipFile(self.path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @cached_property
    def metadata(self) -> Message:
        """The metadata of the wheel."""
        (name,) = (name for name in self.files if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(self.files[name].decode())

    @property
    def modules(self) -> list[str]:
        """The dotted names of all modules."""
        return sorted(
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in self.files
            if name.endswith(".py")
        )


@dataclass(frozen=True)
class Installed:
    """An environment where the wheel is installed."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        """The console script."""
        return self.folder / "bin" / "harasocial-dispatch"

    @property
    def site_packages(self) -> Path:
        """The folder of installed packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"
