"""The instructions of a Dockerfile."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """An instruction of a Dockerfile. Stages are counted from 0."""

    stage: int
    keyword: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments, in the shell form or the exec form."""
        words: list[str] = (
            json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)
        )
        return words
