"""The parsed Dockerfile and compose.yaml."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from harasocial_dispatch.schemas import Settings
from support.instructions import Instruction

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="session")
def dockerfile() -> list[Instruction]:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    without_comments = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    stage, found = -1, []
    for line in without_comments.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            stage += keyword == "FROM"
            found.append(Instruction(stage, keyword, rest.strip()))
    return found


@pytest.fixture(scope="session")
def compose_text() -> str:
    return (DOCKER / "compose.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def compose(compose_text: str) -> dict[str, Any]:
    """The file as Compose reads it, with the default of every variable."""
    filled_in = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", compose_text)
    assert "${" not in filled_in, "a variable without a default"
    document: dict[str, Any] = yaml.safe_load(filled_in.replace("$$", "$"))
    return document


@pytest.fixture(scope="session")
def our_services(compose: dict[str, Any]) -> dict[str, Any]:
    """The services that run this package, by name."""
    return {
        name: service
        for name, service in compose["services"].items()
        if service["image"] == "harasocial-dispatch"
    }


@pytest.fixture(scope="session")
def setting_names() -> set[str]:
    """The names of all settings."""
    return {f"HARASOCIAL_{field.name.upper()}" for field in fields(Settings)}


@pytest.fixture
def make_secrets(tmp_path: Path) -> Callable[..., Path]:
    """Run make-secrets.sh in a new folder, with a token. Return the folder of the secrets."""

    def run(token: str = "a-token") -> Path:
        script = shutil.copy(DOCKER / "make-secrets.sh", tmp_path)
        subprocess.run([script], input=token, text=True, check=True, capture_output=True)
        return tmp_path / "secrets"

    return run
