"""The tests and the code named in docs/guarantees.md exist."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.parts import ROOT

PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")

#: `path` or `path::name`: how the page refers to code and tests.
REFERENCE = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|lua))(?:::(\w+))?`")

#: Each promise's section, by its number.
SECTIONS = {
    int(section.split(".")[0]): section
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    if section[0].isdigit()
}


@cache
def names_in(path: str) -> set[str]:
    """Return the functions and classes of a Python file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    }


def test_the_promises_are_numbered() -> None:
    """Comments in the code and tests use these numbers."""
    assert sorted(SECTIONS) == list(range(1, 16))


@pytest.mark.parametrize("number", SECTIONS)
def test_each_promise_is_explained_and_tested(number: int) -> None:
    """Each has risks, protection, and at least one test."""
    section = SECTIONS[number]
    for heading in ("**Could break it**", "**Protection**", "**Tests**"):
        assert section.count(heading) == 1
    protection, _, tests = section.partition("**Tests**")
    assert [path for path, _ in REFERENCE.findall(protection)], "no code protects it"
    assert [name for _, name in REFERENCE.findall(tests) if name.startswith("test_")], "no test"


def test_what_the_page_names_is_there() -> None:
    """Each file exists, with the named function."""
    references = sorted(set(REFERENCE.findall(PAGE)))
    missing = [
        f"{path}::{name}"
        for path, name in references
        if not (ROOT / path).is_file() or (name and name not in names_in(path))
    ]
    assert references
    assert not missing


def test_every_test_is_named_in_full() -> None:
    """Tests are always named with their file, so that the test above checks all of them."""
    mentioned = re.findall(r"\btest_\w+\b(?!\.py)", PAGE)
    assert sorted(mentioned) == sorted(
        name for _, name in REFERENCE.findall(PAGE) if name.startswith("test_")
    )
