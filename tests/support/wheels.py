"""A wheel of the package, and an environment with it."""

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
    """A wheel, and what building it said."""

    path: Path
    log: str

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The content of each file by its name in the wheel."""
        with ZipFile(self.path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    @cached_property
    def metadata(self) -> Message:
        """What the wheel says about itself."""
        (name,) = (name for name in self.files if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(self.files[name].decode())

    @property
    def modules(self) -> list[str]:
        """The dotted name of every module."""
        return sorted(
            name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            for name in self.files
            if name.endswith(".py")
        )


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        """The console script."""
        return self.folder / "bin" / "harasocial-dispatch"

    @property
    def site_packages(self) -> Path:
        """Where the wheel was unpacked."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"
