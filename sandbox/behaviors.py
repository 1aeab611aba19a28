"""The sandbox's reply to each payload_id. Pure.

    sandbox:<behavior>[:<argument>...][#<anything>]

Arguments are percent-decoded, so a colon can be written as `%3A` and a `#` as `%23`.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain, cycle, repeat
from typing import Any, NamedTuple
from urllib.parse import unquote

from .contract import ACCEPTED_BODY, error_body, error_reply
from .reply import HANG, PLAIN_TEXT, Ending, Step, make_head, make_plain_reply, make_reply

PREFIX = "sandbox:"
#: The Location of the behavior `redirect`. A client must never send a request there.
REDIRECT_PATH = "/social/redirected"

#: Levels of nesting in the body of `deep`.
DEEP_LEVELS = 100_000
#: Bytes of the body of `huge`.
HUGE_BYTES = 32 * 1024 * 1024
#: Bytes of the body of `gzip_bomb` after decompression.
BOMB_BYTES = 1024 * 1024 * 1024
#: CRC-32 of `BOMB_BYTES` zeros, a constant because computing it takes a second.
_BOMB_CRC32 = 0x5B64C2B0
_CHUNK_BYTES = 16 * 1024
#: Text that is dangerous without escaping in a terminal, log, web page, template or shell.
HOSTILE_TEXT = (
    "\x1b[2J\x1b[31mred\x1b[0m\x1b]0;title\x07\x08\x00\r\n\t\x7f\x9b31m "
    "\u202eback\u2028\u200b\ud800 "
    "<script>alert('x')</script> &lt; [bold]x[/bold] %s %n %(x)s {0} {x!r} ${x} $(id) `id` \"'\\"
)
#: Characters of the error_message of `hostile`.
HOSTILE_CHARACTERS = 20_000


class UnknownBehaviorError(ValueError):
    """A payload_id starts with `sandbox:` but does not name a valid behavior."""


class ScriptedReply(NamedTuple):
    """The steps of a reply."""

    steps: Iterable[Step]
    #: The reply accepts the message.
    accepted: bool = False


class Behavior(NamedTuple):
    """The behavior that a payload_id selects, and its arguments by parameter name."""

    name: str
    arguments: dict[str, Any]


#: Accepts the message.
OK = Behavior("ok", {})


def parse_behavior(payload_id: str) -> Behavior:
    """Return the behavior that `payload_id` selects; `ok` if it does not start with `sandbox:`.

    Raises:
        UnknownBehaviorError: there is no such behavior, or its arguments are invalid.
    """
    if not payload_id.startswith(PREFIX):
        return OK
    name, *arguments = payload_id[len(PREFIX) :].partition("#")[0].split(":")
    if name not in _DEFINITIONS:
        raise UnknownBehaviorError(
            f"the sandbox has no behavior {name!r}; it has {', '.join(BEHAVIORS)}"
        )
    parameters = _DEFINITIONS[name].parameters
    required = sum(parameter.default is None for parameter in parameters)
    if not required <= len(arguments) <= len(parameters):
        raise UnknownBehaviorError(f"the form is {form(name)}; arguments given: {len(arguments)}")
    values = {parameter.name: parameter.default for parameter in parameters}
    for parameter, argument in zip(parameters, arguments, strict=False):
        try:
            values[parameter.name] = parameter.parse(unquote(argument))
        except ValueError as error:
            raise UnknownBehaviorError(
                f"{parameter.name} of {form(name)} must be {error}, not {argument!r}"
            ) from None
    return Behavior(name, values)


def form(name: str) -> str:
    """Return the syntax of a behavior, such as `sandbox:flaky:<times>[:<status>]`."""
    arguments = "".join(
        f":<{parameter.name}>" if parameter.default is None else f"[:<{parameter.name}>]"
        for parameter in _DEFINITIONS[name].parameters
    )
    return f"{PREFIX}{name}{arguments}"


def reply_to(behavior: Behavior, *, post_number: int, authorization: str) -> ScriptedReply:
    """Return the reply of `behavior`.

    Args:
        behavior: the result of `parse_behavior`.
        post_number: the number of this POST among those of its job, from 1.
        authorization: the request's header Authorization.
    """
    if behavior is OK:
        return _ACCEPTED
    arguments = dict(behavior.arguments)
    # A behavior with <times> fails that many POSTs of a job, and accepts the following ones.
    if post_number > arguments.pop("times", math.inf):
        return _ACCEPTED
    if behavior.name in ("echo_token", "echo_malformed"):
        arguments["authorization"] = authorization
    reply = _DEFINITIONS[behavior.name].reply
    return reply(**arguments) if callable(reply) else reply


# The parsers of arguments. Each raises ValueError with a description of a valid argument.


def _text(argument: str) -> str:
    if not argument.isprintable() or not argument:
        raise ValueError("text without control characters")
    return argument


def _optional_text(argument: str) -> str:
    return _text(argument) if argument else ""


def _json_number(argument: str) -> str:
    if re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", argument) is None:
        raise ValueError("a JSON number")
    return argument


def _any_status(argument: str) -> int:
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
    """A parameter of a behavior; without a default it is required."""

    name: str
    parse: Callable[[str], Any]
    default: Any = None


# The functions that build replies from a behavior's arguments.

_ACCEPTED_HEAD = make_head(200, len(ACCEPTED_BODY))
_ACCEPTED_BYTES = _ACCEPTED_HEAD + ACCEPTED_BODY
_GZIP = (("Content-Encoding", "gzip"),)


def _reply(*steps: Step) -> ScriptedReply:
    return ScriptedReply(steps)


def _accepted(*steps: Step) -> ScriptedReply:
    return ScriptedReply(steps, accepted=True)


_ACCEPTED = _accepted(_ACCEPTED_BYTES)


def _code(code: str, status: int) -> ScriptedReply:
    return _reply(error_reply(status, code, f"sandbox error {code}"))


def _numeric_code(code: str, status: int) -> ScriptedReply:
    return _reply(make_reply(status, error_body(code, f"sandbox error {code}")))


def _code_in_message(code: str, status: int) -> ScriptedReply:
    return _reply(make_reply(status, error_body("null", f"(#{code}) sandbox error")))


def _call_limit(text: str) -> ScriptedReply:
    headers = (("X-Haravan-Api-Call-Limit", text),)
    return _accepted(make_reply(200, ACCEPTED_BODY, headers=headers))


def _echo_token(status: int, authorization: str, *, malformed: bool = False) -> ScriptedReply:
    token = authorization.partition(" ")[2]
    message = f"the request's header was {authorization}"
    reply = make_reply(
        status,
        error_body(json.dumps(f"refused {token}"), message),
        headers=(("X-Request-Authorization", authorization),),
    )
    if malformed:
        # HTTP libraries often quote an invalid header line in their error message.
        reply = reply.replace(b"\r\n\r\n", f"\r\n{authorization}\r\n\r\n".encode(), 1)
    return _reply(reply)


def _hostile(status: int) -> ScriptedReply:
    message = HOSTILE_TEXT * (HOSTILE_CHARACTERS // len(HOSTILE_TEXT) + 1)
    return _reply(error_reply(status, HOSTILE_TEXT, message[:HOSTILE_CHARACTERS]))


def _status(status: int) -> ScriptedReply:
    if status < 200:
        return _accepted(make_head(status, None, content_type=None) + _ACCEPTED_BYTES)
    return _reply(make_plain_reply(status))


def _throttle(retry_after: str) -> ScriptedReply:
    headers = (("Retry-After", retry_after),) if retry_after else ()
    return _reply(make_plain_reply(429, headers))


def _redirect(status: int) -> ScriptedReply:
    return _reply(make_plain_reply(status, (("Location", REDIRECT_PATH),)))


def _drip(data: bytes, seconds: float) -> Iterator[Step]:
    """Yield `data` byte by byte, with a delay after each byte."""
    for byte in data:
        yield bytes([byte])
        yield seconds


def _slow(seconds: float) -> ScriptedReply:
    return _accepted(seconds, _ACCEPTED_BYTES)


def _slow_headers(seconds: float) -> ScriptedReply:
    return _accepted(*_drip(_ACCEPTED_HEAD, seconds), ACCEPTED_BODY)


def _slow_body(seconds: float) -> ScriptedReply:
    return _accepted(_ACCEPTED_HEAD, *_drip(ACCEPTED_BODY, seconds))


def _endless() -> ScriptedReply:
    head = make_head(200, None, headers=(("Transfer-Encoding", "chunked"),))
    chunk = f"{_CHUNK_BYTES:x}\r\n{' ' * _CHUNK_BYTES}\r\n".encode()
    return ScriptedReply(chain([head], cycle([chunk, 0.0])))


def _huge() -> ScriptedReply:
    start = make_head(200, HUGE_BYTES) + ACCEPTED_BODY[:-1].ljust(_CHUNK_BYTES)
    middle = repeat(b" " * _CHUNK_BYTES, HUGE_BYTES // _CHUNK_BYTES - 2)
    return ScriptedReply(chain([start], middle, [b"}".rjust(_CHUNK_BYTES)]))


@cache
def _gzip_bomb() -> ScriptedReply:
    """Return a well-formed reply of zeros, compressed about a thousand to one.

    After a full flush, deflate does not refer to earlier data. So the stream can repeat one
    compressed piece many times, and only one piece is ever compressed.
    """
    piece_bytes = 1024 * 1024
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = compressor.compress(bytes(piece_bytes)) + compressor.flush(zlib.Z_FULL_FLUSH)
    gzip_head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    last_block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    trailer = _BOMB_CRC32.to_bytes(4, "little") + BOMB_BYTES.to_bytes(4, "little")
    body = gzip_head + piece * (BOMB_BYTES // piece_bytes) + last_block + trailer
    return _reply(make_reply(200, body, headers=_GZIP))


class _Definition(NamedTuple):
    """A behavior: its reply, or the function that builds it from the parameters' values."""

    reply: ScriptedReply | Callable[..., ScriptedReply]
    parameters: tuple[_Parameter, ...] = ()


def _invalid(body: bytes) -> _Definition:
    """Define a reply with status 200 and an invalid body."""
    return _Definition(_reply(make_reply(200, body)))


_STATUS = _Parameter("status", _final_status, 200)
_TIMES = _Parameter("times", _count)
_RETRY_AFTER = _Parameter("retry_after", _optional_text, "")
_SECONDS = _Parameter("seconds", _seconds)
_DROP = _reply(Ending.CLOSE)
_DUPLICATE_HEADERS = (
    ("Content-Type", PLAIN_TEXT),
    ("Content-Length", str(len(ACCEPTED_BODY))),
    ("X-Request-Id", "1"),
    ("X-Request-Id", "2"),
)
_HTTP10_HEAD = make_head(200, None, version="HTTP/1.0", headers=(("Connection", "close"),))

_DEFINITIONS: dict[str, _Definition] = {
    "ok": _Definition(_ACCEPTED),
    "code": _Definition(_code, (_Parameter("code", _text), _STATUS)),
    "numeric_code": _Definition(_numeric_code, (_Parameter("code", _json_number), _STATUS)),
    "code_in_message": _Definition(_code_in_message, (_Parameter("code", _text), _STATUS)),
    "echo_token": _Definition(_echo_token, (_STATUS,)),
    "echo_malformed": _Definition(partial(_echo_token, malformed=True), (_STATUS,)),
    "hostile": _Definition(_hostile, (_STATUS,)),
    "status": _Definition(_status, (_Parameter("status", _any_status),)),
    "throttle": _Definition(_throttle, (_RETRY_AFTER,)),
    "throttle_first": _Definition(_throttle, (_TIMES, _RETRY_AFTER)),
    "flaky": _Definition(_status, (_TIMES, _STATUS._replace(default=503))),
    "flaky_drop": _Definition(lambda: _DROP, (_TIMES,)),
    "slow": _Definition(_slow, (_SECONDS,)),
    "slow_headers": _Definition(_slow_headers, (_SECONDS,)),
    "drip": _Definition(_slow_body, (_SECONDS._replace(default=0.05),)),
    "hang": _Definition(_reply(HANG)),
    "drop": _Definition(_DROP),
    # A server that closes a connection with unread bytes resets it too.
    "drop_before": _Definition(_reply(Ending.RESET)),
    "drop_mid": _Definition(
        _reply(_ACCEPTED_HEAD, ACCEPTED_BODY[: len(ACCEPTED_BODY) // 2], Ending.CLOSE)
    ),
    "reset": _Definition(_reply(Ending.RESET)),
    "garbage": _invalid(b"<html><body>this is not JSON</body></html>"),
    "not_object": _invalid(b"[" + ACCEPTED_BODY + b"]"),
    "missing_fields": _invalid(b"{}"),
    "no_success": _invalid(ACCEPTED_BODY.replace(b'{"success":true}', b"null")),
    "unsuccessful": _invalid(ACCEPTED_BODY.replace(b"true", b"false")),
    "wrong_types": _invalid(
        b'{"data":{"success":"true"},"has_error":"false","error_code":0,"error_message":[]}'
    ),
    "nan": _invalid(ACCEPTED_BODY.replace(b'"error_code":null', b'"error_code":NaN')),
    "deep": _invalid(
        ACCEPTED_BODY.replace(b'{"success":true}', b"[" * DEEP_LEVELS + b"]" * DEEP_LEVELS)
    ),
    "duplicate_keys": _invalid(
        ACCEPTED_BODY.replace(b'"has_error"', b'"has_error":true,"has_error"')
    ),
    "not_utf8": _invalid(
        ACCEPTED_BODY.replace(b'"error_message":null', b'"error_message":"\xff\xfe\xe9"')
    ),
    "huge": _Definition(_huge),
    "endless": _Definition(_endless),
    "gzip": _Definition(
        _accepted(make_reply(200, gzip.compress(ACCEPTED_BODY, mtime=0), headers=_GZIP))
    ),
    "gzip_bomb": _Definition(_gzip_bomb),
    "wrong_length": _Definition(
        _reply(make_head(200, len(ACCEPTED_BODY) + 100), ACCEPTED_BODY, Ending.CLOSE)
    ),
    "http10": _Definition(_accepted(_HTTP10_HEAD, ACCEPTED_BODY, Ending.CLOSE)),
    "duplicate_headers": _Definition(
        _accepted(make_reply(200, ACCEPTED_BODY, headers=_DUPLICATE_HEADERS))
    ),
    "call_limit": _Definition(_call_limit, (_Parameter("text", _text),)),
    "redirect": _Definition(_redirect, (_STATUS._replace(default=302),)),
}

#: The names of all behaviors.
BEHAVIORS: tuple[str, ...] = tuple(_DEFINITIONS)
