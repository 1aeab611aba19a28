"""Load and call the Lua scripts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import redis
from redis.connection import ConnectionInterface
from redis.exceptions import NoScriptError

_SCRIPTS = files(__package__) / "lua"
_SHARED = _SCRIPTS / "shared"
#: The shared file that every script needs, and how a script names the others.
_BASE, _NEEDS = "keys", re.compile(r"^-- needs (.+)$", re.MULTILINE)

#: The layout of the keys that these scripts read and write. A change that older scripts would
#: misread increases the number. These scripts read the keys of lower layouts and store their own
#: number. After that, an older program refuses to start or to continue.
VERSION = 2
#: Error for a namespace with keys of a later layout; `%s` is its number.
OTHER_VERSION = (
    f"this namespace has keys of layout %s, and this program reads layout {VERSION}: it was used "
    "by a later version of harasocial-dispatch; install that version here as well, or set "
    "HARASOCIAL_NAMESPACE to another name"
)


def _shared_files(text: str, loaded: list[str]) -> list[str]:
    """Return `loaded` and the shared files that `text` needs, each after the files it needs."""
    found = _NEEDS.search(text)
    for name in found[1].split(", ") if found else ():
        if name not in loaded:
            loaded = [*_shared_files(_shared(name), loaded), name]
    return loaded


def _nested(given: str, files: Sequence[str]) -> str:
    """Return one script of several files. Each file is a function within the one before it.

    Lua creates all functions again in each call. One long function would take a third more of the
    call's fixed time, because Lua compares each variable of a new function with all variables of
    the same scope that other functions use.
    """
    within = "\nreturn (function()\n"
    return given + within.join(files) + "\nend)()" * (len(files) - 1)


def _shared(name: str) -> str:
    return (_SHARED / f"{name}.lua").read_text(encoding="utf-8")


def explain_version(client: Any, prefix: str) -> str | None:
    """Return why this program must not use the keys of a namespace, or None if it can."""
    try:
        found: str | None = client.get(f"{prefix}version")
    except redis.ResponseError:  # of the wrong type: the first script repairs it
        return None
    # Any other value was written by another client, and is also repaired.
    is_version = found is not None and found.isascii() and found.isdecimal() and len(found) < 10
    return OTHER_VERSION % found if is_version and int(str(found)) > VERSION else None


class Scripts:
    """Calls scripts by name: `scripts("claim", token, 8, …)`.

    Every script gets one key, the namespace's prefix; shared/keys.lua explains why.

    Args:
        ring: rings the doorbell; must not raise.
        constants: settings that several scripts need, by their names in the shared files.
    """

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        ring: Callable[[], object],
        constants: Mapping[str, int],
    ) -> None:
        self._pool = client.connection_pool
        self._prefix = prefix
        self._ring = ring
        given = "".join(f"local {name} = {value}\n" for name, value in constants.items())
        given += f"local VERSION, OTHER_VERSION = {VERSION}, {json.dumps(OTHER_VERSION)}\n"
        texts = {
            file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
            for file in _SCRIPTS.iterdir()
            if file.name.endswith(".lua")
        }
        self._texts = {
            name: _nested(given, [*map(_shared, _shared_files(text, [_BASE])), text])
            for name, text in texts.items()
        }
        self._digests = {
            name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }

    @contextmanager
    def connection(self) -> Iterator[ConnectionInterface]:
        """Return a connection from the pool for calls by this thread."""
        connection = self._pool.get_connection()
        try:
            yield connection
        finally:
            self._pool.release(connection)

    def __call__(self, name: str, *args: str | int | float) -> list[Any]:
        """Run a script; the comment at the top of its file describes its arguments."""
        with self.connection() as connection:
            return self.run(connection, name, *args)

    def run(
        self, connection: ConnectionInterface, name: str, *args: str | int | float
    ) -> list[Any]:
        """Run a script on a connection.

        redis-py's `Script` takes twice the CPU time, and its errors do not show whether the call
        was sent.
        """
        call = (1, self._prefix, *args)
        try:
            return _reply(connection, "EVALSHA", self._digests[name], *call)
        except NoScriptError:  # the server was restarted
            return _reply(connection, "EVAL", self._texts[name], *call)

    def and_ring(self, name: str, *args: str | int | float) -> list[Any]:
        """Run a script whose reply begins with 1 to ring or 0; ring, and return the rest."""
        return self.ring_if_told(self(name, *args))

    def ring_if_told(self, reply: list[Any]) -> list[Any]:
        """Ring if a script's reply begins with 1; return the rest of the reply."""
        ring, *rest = reply
        if ring == 1:
            self._ring()
        return rest


def _reply(connection: ConnectionInterface, *command: str | int | float) -> list[Any]:
    # These disconnect on any error that is not an error reply of the server.
    connection.send_command(*command)  # type: ignore[no-untyped-call]  # redis-py has no types here
    return cast("list[Any]", connection.read_response())
