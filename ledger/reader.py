"""Reading the ledger's keys directly, whatever type another client has given one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import redis
from redis.client import Pipeline

from .scripts import Scripts


class Reader(redis.Redis):
    """A client that shares another's connections, for reading.

    A key of the wrong type is moved out of the way and read again, as the scripts do it.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self._repair = scripts

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command."""
        # redis-py has no types for it.
        run: Any = super().execute_command
        try:
            return run(*args, **options)
        except redis.ResponseError as error:
            if not _is_wrong_type(error):
                raise
            self.repair([args])
            return run(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that does the same."""
        return _ReadingPipeline(self, transaction, shard_hint)

    def repair(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Move the keys of commands that failed out of the way, if they still fail."""
        self._repair("repair", *(json.dumps([_text(part) for part in args]) for args in commands))


class _ReadingPipeline(Pipeline):
    def __init__(self, reader: Reader, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(reader.connection_pool, reader.response_callbacks, transaction, shard_hint)
        self._reader = reader

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands = list(self.command_stack)
        answers = super().execute(raise_on_error=False)
        broken = [
            args
            for (args, _), answer in zip(commands, answers, strict=True)
            if _is_wrong_type(answer)
        ]
        if broken:
            self._reader.repair(broken)
            self.command_stack = commands
            answers = super().execute(raise_on_error=False)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
        return answers


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def _is_wrong_type(answer: object) -> bool:
    return isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")
