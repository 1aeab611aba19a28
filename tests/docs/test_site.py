"""The site can be built, its links are valid, and its lists are complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from harasocial_dispatch.schemas import Settings
from support.documents import PAGES, ROOT, anchors_of, links_of, name_of

#: A build takes several seconds, and much longer on a busy machine.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built like `make docs`, in its own folder."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-nWq", "--keep-going", "-c", "docs", ".", folder],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_is_built_without_a_warning(site: Path) -> None:
    """All documents except the README are in it."""
    pages = [page.relative_to(ROOT) for page in PAGES if page != ROOT / "README.md"]
    assert [page for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


def test_every_directive_is_carried_out(site: Path) -> None:
    """No directive is shown as text, as in another markup language."""
    shown = [
        f"{page.relative_to(site)}: {directive}"
        for page in site.rglob("*.html")
        for directive in re.findall(
            r"(?:\.\. \w+::|```\{\w+\}) .*", page.read_text(encoding="utf-8")
        )
    ]
    assert shown == []


def test_generated_pages_name_everything(site: Path) -> None:
    """Every setting, command and public function has an entry with an anchor."""
    settings = (site / "docs" / "reference" / "settings.html").read_text(encoding="utf-8")
    for name in Settings.__dataclass_fields__:
        assert f'id="envvar-HARASOCIAL_{name.upper()}"' in settings, name

    from harasocial_dispatch.cli import commands

    command_line = (site / "docs" / "reference" / "command-line.html").read_text(encoding="utf-8")
    for name in commands.commands:
        assert f'id="harasocial-dispatch-{name}"' in command_line, name

    from harasocial_dispatch import producer

    python = (site / "docs" / "reference" / "python.html").read_text(encoding="utf-8")
    for name in producer.__all__:
        assert re.search(rf'id="harasocial_dispatch\.[\w.]*\b{name}"', python), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_lead_somewhere(page: Path) -> None:
    """Links to files of the repository, and to headings in them, work as on GitHub."""
    for link in links_of(page):
        target, _, anchor = link.partition("#")
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor and file.suffix == ".md":
            assert anchor in anchors_of(file), link


def test_the_settings_named_are_settings() -> None:
    """The program reads each HARASOCIAL_ variable that a document names."""
    known = {name.upper() for name in Settings.__dataclass_fields__}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"HARASOCIAL_([A-Z_]+[A-Z])\b", text))
        assert {name.removesuffix("_FILE") for name in named} - known - {"TOKENS"} == set(), page


def test_the_runbook_has_every_alert_and_every_pause() -> None:
    """Each has a heading, so that an operator finds it quickly."""
    from harasocial_dispatch.schemas.pause_reasons import PAUSE_REASONS

    rules = yaml.safe_load((ROOT / "docs/monitoring/alerts.yaml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    runbook = (ROOT / "docs/operate/runbook.md").read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", runbook, re.MULTILINE))
    assert headings == alerts | set(PAUSE_REASONS) | {"manual"}
