"""The Dockerfile: all files, extras and commands in it exist."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harasocial_dispatch.cli import commands
from support.instructions import Instruction
from support.parts import SETUP_CFG

ROOT = Path(__file__).parents[2]

#: The type of the fixture `of`.
Pick = Callable[..., list[Instruction]]


@pytest.fixture
def of(dockerfile: list[Instruction]) -> Pick:
    """Return a function that selects instructions by keyword, optionally of the last stage."""

    def pick(keyword: str, *, last_stage: bool = False) -> list[Instruction]:
        last = dockerfile[-1].stage
        return [
            each
            for each in dockerfile
            if each.keyword == keyword and (not last_stage or each.stage == last)
        ]

    return pick


@pytest.fixture
def copied(of: Pick) -> dict[str, str]:
    """The files that are copied from the repository → their destinations."""
    return {
        source: destination
        for each in of("COPY")
        if not each.text.startswith("--from=")
        for *sources, destination in [each.words]
        for source in sources
    }


def test_every_stage_uses_the_same_pinned_image(of: Pick) -> None:
    """It has one version of Python, which this package supports."""
    base, *stages = [each.words for each in of("FROM")]

    assert base == ["python:3.13-slim", "AS", "python"]
    assert len(stages) >= 2
    assert {stage[0] for stage in stages} == {"python"}
    assert "Programming Language :: Python :: 3.13" in SETUP_CFG["metadata"]["classifiers"]


def test_every_required_file_is_copied(copied: dict[str, str]) -> None:
    """These are all parts of the package, and the files that the build needs."""
    folders = {
        line.split("=")[1].strip()
        for line in SETUP_CFG["options"]["package_dir"].split("\n")
        if line
    }
    files = {"setup.cfg", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"}

    assert copied == dict.fromkeys(files, "./") | {folder: folder for folder in folders}
    assert all((ROOT / source).exists() for source in copied)


def test_nothing_else_reaches_the_build(copied: dict[str, str]) -> None:
    """The ignore file excludes all files that are not copied, such as .env and secrets."""
    ignore = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    first, *others = [line for line in ignore.splitlines() if line and line[0] != "#"]

    assert first == "*"
    assert {line for line in others if line[0] == "!"} == {f"!{source}" for source in copied}


def test_installed_packages_are_pinned(of: Pick) -> None:
    """The constraints apply to every pip command, and the extra exists."""
    (workdir,) = of("WORKDIR")
    variables = dict(word.split("=", 1) for word in of("ENV")[0].words)
    (run,) = [each for each in of("RUN") if "pip" in each.text]

    assert variables["PIP_CONSTRAINT"] == f"{workdir.text}/constraints.txt"
    assert of("ENV")[0].stage == workdir.stage == run.stage
    assert "[all]" in run.text
    assert "all" in SETUP_CFG["options.extras_require"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert all(f"\n{name}==" in pinned for name in ("celery", "flower", "setuptools"))


def test_the_image_contains_only_the_installed_package(
    of: Pick, dockerfile: list[Instruction]
) -> None:
    """The last stage copies no files from the repository, and only root can write to the files."""
    (copy,) = of("COPY", last_stage=True)

    assert copy.words[0] == "--from=build"
    assert not any("chown" in each.text for each in dockerfile)
    path = dict(word.split("=", 1) for word in of("ENV", last_stage=True)[0].words)["PATH"]
    assert path.startswith(f"{copy.words[-1]}/bin:")


def test_the_image_does_not_run_as_root(of: Pick, dockerfile: list[Instruction]) -> None:
    """The user is a number, is created before its use, and runs all following instructions."""
    (user,) = of("USER", last_stage=True)
    number, _ = user.text.split(":")

    assert int(number) > 0
    made = next(each for each in of("RUN", last_stage=True) if "useradd" in each.text)
    assert f"--uid {number}" in made.text
    following = dockerfile[dockerfile.index(user) + 1 :]
    assert [each.keyword for each in following] == ["HEALTHCHECK", "CMD"]


def test_no_secret_is_in_a_layer(dockerfile: list[Instruction]) -> None:
    """No build argument or variable has the name of a secret."""
    assert not [each for each in dockerfile if each.keyword == "ARG"]
    for each in dockerfile:
        if each.keyword == "ENV":
            names = {word.split("=")[0] for word in each.words}
            assert not any(name.startswith("HARASOCIAL_") for name in names)


def test_the_image_starts_a_worker_by_default(of: Pick) -> None:
    """Another command can replace the default."""
    (command,) = of("CMD")

    assert command.words == ["harasocial-dispatch", "worker"]
    assert "worker" in commands.commands
    assert not of("ENTRYPOINT")
