""".env.example has every setting with its default, in a valid format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harasocial_dispatch.schemas import Settings

EXAMPLE = Path(__file__).parents[2] / "docker" / ".env.example"
#: `NAME=value`, commented or not.
ASSIGNMENT = re.compile(r"^#?([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def assignments() -> list[tuple[str, str]]:
    return ASSIGNMENT.findall(EXAMPLE.read_text(encoding="utf-8"))


def test_every_setting_is_listed_once(
    assignments: list[tuple[str, str]], setting_names: set[str]
) -> None:
    """No setting is missing, and there are no other variables."""
    ours = [name for name, _ in assignments if name.startswith("HARASOCIAL_")]

    assert sorted(ours) == sorted(setting_names)


def test_the_values_are_the_defaults(assignments: list[tuple[str, str]], tmp_path: Path) -> None:
    """The file with all lines uncommented changes no setting."""
    env_file = tmp_path / ".env"
    env_file.write_text("".join(f"{name}={text}\n" for name, text in assignments if text))

    assert Settings.from_environment(env_file) == Settings()


def test_every_setting_is_explained() -> None:
    """Every group of variables has a comment above it."""
    for paragraph in EXAMPLE.read_text(encoding="utf-8").split("\n\n"):
        if ASSIGNMENT.search(paragraph):
            assert paragraph.startswith("# "), paragraph


def test_the_unchanged_file_sets_only_the_profile() -> None:
    """An unchanged copy uses the defaults."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()

    assert [line for line in lines if line and line[0] != "#"] == ["COMPOSE_PROFILES=live"]


def test_every_variable_of_the_compose_file_is_listed(
    assignments: list[tuple[str, str]], compose_text: str
) -> None:
    """The defaults are those of compose.yaml."""
    left_open = set(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", compose_text))
    others = {pair for pair in assignments if not pair[0].startswith("HARASOCIAL_")}

    assert others == left_open | {("COMPOSE_PROFILES", "live")}
