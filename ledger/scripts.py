"""The Lua scripts: the one place where they are loaded and called."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, cast

import redis
from redis.commands.core import Script

_FOLDER = files(__package__) / "lua"
#: What stands before every script.
_SHARED = "transitions"


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


class Scripts:
    """Each script as a method-like callable: `scripts("claim", token, 8, …)`.

    Every script sees the same one key, the namespace's prefix; transitions.lua says why.
    """

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._prefix = prefix
        shared = _text(_SHARED)
        found = (file.name for file in _FOLDER.iterdir())
        names = {name[:-4] for name in found if name.endswith(".lua")} - {_SHARED}
        self._scripts: dict[str, Script] = {
            name: client.register_script(f"{shared}\n{_text(name)}") for name in names
        }

    def __call__(self, name: str, *args: str | int | float) -> list[Any]:
        """Run a script; its contract is at the head of its file."""
        return cast("list[Any]", self._scripts[name](keys=[self._prefix], args=args))
