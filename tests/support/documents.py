"""The documents of the repository, their code blocks and their links.

A comment on the line above a code block says how the tests treat it:

    <!-- not run: the reason -->     the block is not run
    <!-- exit status: 3 -->          its commands end with this exit status instead of 0
    <!-- file: orders.csv -->        the block is the content of a file that later commands read
    <!-- output of: COMMAND -->      the command prints JSON of this shape: the same fields

Without a comment, `console` and `python` blocks are run, and `json` and `yaml` blocks are
parsed. `text` blocks are output and drawings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Pages whose commands and snippets are run. The READMEs of docker/ and examples/ have their own
#: tests in tests/docker and tests/examples.
RUN = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
#: Every document, for its links.
PAGES = (*RUN, *(path for path in sorted(ROOT.glob("[!.]*/README.md"))), ROOT / "SECURITY.md")

_FENCE = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*?) -->\n)?"
    r"^(?P<ticks>```+)(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=ticks)$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$|\bhref=\"([^\"]+)\"", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, with the kind and value of the note above it."""

    page: Path
    line: int
    language: str
    text: str
    note: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The commands of a console block: each line after `$ `, with its continuation lines."""
        joined = self.text.replace("\\\n", "")
        return [line[2:] for line in joined.splitlines() if line.startswith("$ ")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        note, _, value = (found["note"] or "").partition(":")
        line = text.count("\n", 0, found.start("ticks")) + 1
        yield Block(page, line, found["language"], found["text"], note.strip(), value.strip())


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links, except in code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"`[^`\n]*`", "", text)
    return ["".join(target) for target in _LINK.findall(text)]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        count = sum(
            slug == other or re.fullmatch(rf"{slug}-\d+", other) is not None for other in anchors
        )
        anchors.add(f"{slug}-{count}" if count else slug)
    return anchors


BLOCKS = [block for page in RUN for block in blocks_of(page)]
