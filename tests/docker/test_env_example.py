""".env.example: every setting, with its real default, in a form that the program reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harasocial_dispatch.schemas import Settings

EXAMPLE = Path(__file__).parents[2] / "docker" / ".env.example"
#: `NAME=value`, commented out or not.
ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def assignments():
    return ASSIGNMENT.findall(EXAMPLE.read_text(encoding="utf-8"))


def test_it_names_every_setting_once(assignments, setting_names):
    """No setting is missing and none is made up."""
    ours = [name for name, _ in assignments if name.startswith("HARASOCIAL_")]

    assert sorted(ours) == sorted(setting_names)


def test_its_values_are_the_defaults(assignments, tmp_path):
    """All uncommented, it changes nothing."""
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={text}\n" for name, text in assignments if text))

    assert Settings.from_environment(env_file) == Settings()


def test_each_is_explained():
    """A comment stands above every group of variables."""
    for paragraph in EXAMPLE.read_text(encoding="utf-8").split("\n\n"):
        if ASSIGNMENT.search(paragraph):
            assert paragraph.startswith("# "), paragraph


def test_as_it_is_it_sets_only_the_profile():
    """A copy of it, unchanged, means the defaults."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line and line[0] != "#"] == ["COMPOSE_PROFILES=live"]


def test_it_names_what_the_compose_file_leaves_open(assignments, compose_text):
    """Every variable in compose.yaml, with the same default."""
    left_open = set(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose_text))
    others = {pair for pair in assignments if not pair[0].startswith("HARASOCIAL_")}

    assert others == left_open | {("COMPOSE_PROFILES", "live")}
