"""Functions that fail, to replace others in a test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function or method that raises `error`."""

    def fail(*_args: object, **_options: object) -> NoReturn:
        raise error

    return fail


def failing_at(number: int, error: BaseException, function: Callable[P, R]) -> Callable[P, R]:
    """Return `function`, whose call with this number raises `error`."""
    calls = count(1)

    def call(*args: P.args, **options: P.kwargs) -> R:
        if next(calls) == number:
            raise error
        return function(*args, **options)

    return call
