"""Which behaviour a payload_id asks for. Pure; what each one sends is in `replies`.

    sandbox:<behaviour>[:<argument>...][#<anything>]

Arguments are percent-decoded, so that a colon can be written as `%3A` and a `#` as `%23`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

PREFIX = "sandbox:"

_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class UnknownBehaviourError(ValueError):
    """A payload_id starts with `sandbox:` and asks for nothing the sandbox can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """A behaviour's name and its arguments; those it does not take keep their defaults."""

    name: str = "ok"
    #: The error_code of the reply, as text.
    code: str = ""
    #: The HTTP status of the reply.
    status: int = 200
    #: The value of the header Retry-After; empty for no such header.
    retry_after: str = ""
    #: How many of a job's POSTs fare badly before one is accepted.
    times: int = 0
    seconds: float = 0.0
    #: The request's header Authorization; only `echo_…` look at it.
    authorization: str = ""


ACCEPTED = Behaviour()


def parse_behaviour(payload_id: str) -> Behaviour:
    """Return the behaviour that `payload_id` asks for: accepted, if it does not ask.

    Raises:
        UnknownBehaviourError: if there is none of that name, or its arguments do not fit.
    """
    if not payload_id.startswith(PREFIX):
        return ACCEPTED
    name, *arguments = payload_id[len(PREFIX) :].partition("#")[0].split(":")
    parameters = _PARAMETERS.get(name)
    if parameters is None:
        raise UnknownBehaviourError(
            f"the sandbox has no behaviour {name!r}; it has {', '.join(BEHAVIOURS)}"
        )
    required = sum(parameter.default is None for parameter in parameters)
    if not required <= len(arguments) <= len(parameters):
        raise UnknownBehaviourError(f"the form is {form(name)}; arguments given: {len(arguments)}")
    values: dict[str, Any] = {
        parameter.field: parameter.default
        for parameter in parameters
        if parameter.default is not None
    }
    for parameter, argument in zip(parameters, arguments, strict=False):
        try:
            values[parameter.field] = parameter.read(unquote(argument))
        except ValueError as error:
            raise UnknownBehaviourError(
                f"{parameter.field} of {form(name)} must be {error}, not {argument!r}"
            ) from None
    return Behaviour(name=name, **values)


def form(name: str) -> str:
    """Return how the behaviour is written, such as `sandbox:flaky:<times>[:<status>]`."""
    arguments = "".join(
        f":<{parameter.field}>" if parameter.default is None else f"[:<{parameter.field}>]"
        for parameter in _PARAMETERS[name]
    )
    return f"{PREFIX}{name}{arguments}"


# Each reader turns an argument's text into a value, or raises ValueError saying what it must be.


def _text(argument: str) -> str:
    if not argument.isprintable() or not argument:
        raise ValueError("text without control characters")
    return argument


def _optional_text(argument: str) -> str:
    return _text(argument) if argument else ""


def _json_number(argument: str) -> str:
    if _JSON_NUMBER.fullmatch(argument) is None:
        raise ValueError("a JSON number")
    return argument


def _status(argument: str) -> int:
    if re.fullmatch(r"[1-9][0-9]{2}", argument) is None:
        raise ValueError("an HTTP status from 100 to 999")
    return int(argument)


def _final_status(argument: str) -> int:
    if re.fullmatch(r"[2-9][0-9]{2}", argument) is None:
        raise ValueError("an HTTP status from 200 to 999")
    return int(argument)


def _count(argument: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", argument) is None:
        raise ValueError("a whole number")
    return int(argument)


def _seconds(argument: str) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError("a number of seconds, 0 or more")
    return seconds


class _Parameter(NamedTuple):
    """One argument of a behaviour; without a default it is required."""

    field: str
    read: Callable[[str], Any]
    default: Any = None


_TIMES = _Parameter("times", _count)
_RETRY_AFTER = _Parameter("retry_after", _optional_text, "")

_PARAMETERS: dict[str, tuple[_Parameter, ...]] = {
    "ok": (),
    "code": (_Parameter("code", _text), _Parameter("status", _final_status, 200)),
    "numeric_code": (
        _Parameter("code", _json_number),
        _Parameter("status", _final_status, 200),
    ),
    "echo_token": (_Parameter("status", _final_status, 200),),
    "echo_malformed": (_Parameter("status", _final_status, 200),),
    "hostile": (_Parameter("status", _final_status, 200),),
    "status": (_Parameter("status", _status),),
    "throttle": (_RETRY_AFTER,),
    "throttle_first": (_TIMES, _RETRY_AFTER),
    "flaky": (_TIMES, _Parameter("status", _final_status, 503)),
    "flaky_drop": (_TIMES,),
    "slow": (_Parameter("seconds", _seconds),),
    "slow_headers": (_Parameter("seconds", _seconds),),
    "drip": (_Parameter("seconds", _seconds, 0.05),),
    "hang": (),
    "drop": (),
    "drop_before": (),
    "drop_mid": (),
    "reset": (),
    "garbage": (),
    "not_object": (),
    "missing_fields": (),
    "no_success": (),
    "unsuccessful": (),
    "wrong_types": (),
    "nan": (),
    "deep": (),
    "duplicate_keys": (),
    "not_utf8": (),
    "huge": (),
    "endless": (),
    "gzip": (),
    "gzip_bomb": (),
    "wrong_length": (),
    "http10": (),
    "duplicate_headers": (),
    "redirect": (_Parameter("status", _final_status, 302),),
}

#: The names of all behaviours.
BEHAVIOURS: tuple[str, ...] = tuple(_PARAMETERS)
