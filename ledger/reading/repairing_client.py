"""Read the ledger's keys directly, and repair keys that have the wrong type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import redis
from redis.client import Pipeline

from ..connection import translated_errors
from ..scripts import Scripts


class RepairingClient(redis.Redis):
    """A client for reading that shares the connections of another client.

    A key of the wrong type is renamed and read again, as in the scripts. Commands raise
    `QueueUnavailable` instead of redis-py's errors.
    """

    def __init__(self, client: redis.Redis, scripts: Scripts, redis_url: str) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self._scripts = scripts
        self._url = redis_url

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command."""
        # redis-py has no types for it.
        run: Any = super().execute_command
        with self.translated_errors():
            try:
                return run(*args, **options)
            except redis.ResponseError as error:
                if not _is_wrong_type(error):
                    raise
                self.repair([args])
                return run(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Return a pipeline that also repairs keys."""
        return _ReadingPipeline(self, transaction, shard_hint)

    def translated_errors(self) -> AbstractContextManager[None]:
        """Raise `QueueUnavailable` instead of redis-py's errors."""
        return translated_errors(self._url)

    def repair(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Run commands that failed, so that the script renames keys of the wrong type."""
        self._scripts("repair", *(json.dumps([_text(part) for part in args]) for args in commands))


class _ReadingPipeline(Pipeline):
    def __init__(self, client: RepairingClient, transaction: bool, shard_hint: str | None) -> None:
        super().__init__(client.connection_pool, client.response_callbacks, transaction, shard_hint)
        self._client = client

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with self._client.translated_errors():
            answers = self._execute_and_repair()
            if raise_on_error:
                for answer in answers:
                    if isinstance(answer, redis.RedisError):
                        raise answer
        return answers

    def _execute_and_repair(self) -> list[Any]:
        commands = list(self.command_stack)
        answers = super().execute(raise_on_error=False)
        broken = [
            args
            for (args, _), answer in zip(commands, answers, strict=True)
            if _is_wrong_type(answer)
        ]
        if broken:
            self._client.repair(broken)
            self.command_stack = commands
            answers = super().execute(raise_on_error=False)
        return answers


def _text(part: Any) -> str:
    return part.decode() if isinstance(part, bytes) else str(part)


def _is_wrong_type(answer: object) -> bool:
    return isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE")
