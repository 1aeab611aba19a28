"""What each behaviour sends. Pure: a behaviour and the number of the POST in, a `Reply` out."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from .behaviours import Behaviour
from .bodies import ACCEPTED_BODY, HOSTILE_CHARACTERS, HOSTILE_TEXT, ODD_BODIES
from .wire import PLAIN_TEXT, Ending, Reply, make_head, make_reply, reason

#: Where the behaviour `redirect` points to. No request must ever come there.
REDIRECT_PATH = "/social/redirected"

#: Bytes of the body of `huge`.
HUGE_BYTES = 32 * 1024 * 1024
#: Bytes that the body of `gzip_bomb` unpacks to.
BOMB_BYTES = 1024 * 1024 * 1024
#: CRC-32 of that many zeros. Working it out takes a second, for a value that never changes.
_BOMB_CRC32 = 0x5B64C2B0
_CHUNK_BYTES = 16 * 1024


def reply_to(behaviour: Behaviour, post_number: int) -> Reply:
    """Return what `behaviour` sends to a job's POST number `post_number`, counted from 1."""
    return _REPLIES[behaviour.name](behaviour, post_number)


def error_reply(status: int, code: str, message: str) -> Reply:
    """Return the documented reply to a request that does not meet validation."""
    return make_reply(status, _error_body(json.dumps(code), message))


def _error_body(code_json: str, message: str) -> bytes:
    return (
        f'{{"data":null,"has_error":true,"error_code":{code_json},'
        f'"error_message":{json.dumps(message)}}}'
    ).encode()


ACCEPTED_REPLY = replace(make_reply(200, ACCEPTED_BODY), accepted=True)


def _ok(_: Behaviour, __: int) -> Reply:
    return ACCEPTED_REPLY


def _code(behaviour: Behaviour, _: int) -> Reply:
    return error_reply(behaviour.status, behaviour.code, f"sandbox error {behaviour.code}")


def _numeric_code(behaviour: Behaviour, _: int) -> Reply:
    body = _error_body(behaviour.code, f"sandbox error {behaviour.code}")
    return make_reply(behaviour.status, body)


def _echo_token(behaviour: Behaviour, _: int) -> Reply:
    echoed = behaviour.authorization
    token = echoed.partition(" ")[2]
    return make_reply(
        behaviour.status,
        _error_body(json.dumps(f"refused {token}"), f"the request's header was {echoed}"),
        headers=(("X-Request-Authorization", echoed),),
    )


def _echo_malformed(behaviour: Behaviour, number: int) -> Reply:
    reply = _echo_token(behaviour, number)
    # Some HTTP libraries quote such a line in their error.
    return replace(reply, head=reply.head[:-2] + f"{behaviour.authorization}\r\n\r\n".encode())


def _hostile(behaviour: Behaviour, _: int) -> Reply:
    message = HOSTILE_TEXT * (HOSTILE_CHARACTERS // len(HOSTILE_TEXT) + 1)
    return error_reply(behaviour.status, HOSTILE_TEXT, message[:HOSTILE_CHARACTERS])


def _status(behaviour: Behaviour, _: int) -> Reply:
    if behaviour.status < 200:
        interim = make_head(behaviour.status, None, content_type=None)
        return replace(ACCEPTED_REPLY, head=interim + ACCEPTED_REPLY.head)
    return plain_reply(behaviour.status)


def plain_reply(status: int, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a reply whose body is the status in words, as a proxy or a web server would send."""
    return make_reply(status, f"{status} {reason(status)}\n".encode(), headers=headers)


def _throttle(behaviour: Behaviour, _: int) -> Reply:
    retry_after = behaviour.retry_after
    return plain_reply(429, (("Retry-After", retry_after),) if retry_after else ())


def _throttle_first(behaviour: Behaviour, post_number: int) -> Reply:
    if post_number > behaviour.times:
        return ACCEPTED_REPLY
    return _throttle(behaviour, post_number)


def _flaky(behaviour: Behaviour, post_number: int) -> Reply:
    if post_number > behaviour.times:
        return ACCEPTED_REPLY
    return plain_reply(behaviour.status)


def _flaky_drop(behaviour: Behaviour, post_number: int) -> Reply:
    return ACCEPTED_REPLY if post_number > behaviour.times else _DROP


def _slow(behaviour: Behaviour, _: int) -> Reply:
    return replace(ACCEPTED_REPLY, wait_seconds=behaviour.seconds)


def _slow_headers(behaviour: Behaviour, _: int) -> Reply:
    return replace(ACCEPTED_REPLY, head_seconds_per_byte=behaviour.seconds)


def _drip(behaviour: Behaviour, _: int) -> Reply:
    return replace(ACCEPTED_REPLY, body_seconds_per_byte=behaviour.seconds)


def _redirect(behaviour: Behaviour, _: int) -> Reply:
    return plain_reply(behaviour.status, (("Location", REDIRECT_PATH),))


def _body(body: bytes) -> Callable[[Behaviour, int], Reply]:
    """Make a behaviour of a 200 with this body."""
    reply = make_reply(200, body)
    return lambda _, __: reply


def _always(reply: Reply) -> Callable[[Behaviour, int], Reply]:
    return lambda _, __: reply


@lru_cache(maxsize=1)
def _huge() -> Reply:
    padding = b" " * (HUGE_BYTES - len(ACCEPTED_BODY))
    return make_reply(200, ACCEPTED_BODY[:-1] + padding + b"}")


@lru_cache(maxsize=1)
def _gzip_bomb() -> Reply:
    """Return a well-formed reply of zeros, packed about a thousand to one.

    After a full flush deflate starts anew, so one packed piece may stand in the stream many times
    and only one piece is ever compressed.
    """
    piece_bytes = 1024 * 1024
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    piece = packer.compress(bytes(piece_bytes)) + packer.flush(zlib.Z_FULL_FLUSH)
    gzip_head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    last_block = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()
    trailer = _BOMB_CRC32.to_bytes(4, "little") + BOMB_BYTES.to_bytes(4, "little")
    body = gzip_head + piece * (BOMB_BYTES // piece_bytes) + last_block + trailer
    return make_reply(200, body, headers=(("Content-Encoding", "gzip"),))


def _gzip() -> Reply:
    body = gzip.compress(ACCEPTED_BODY, mtime=0)
    head = make_head(200, len(body), headers=(("Content-Encoding", "gzip"),))
    return replace(ACCEPTED_REPLY, head=head, body=body)


def _duplicate_headers() -> Reply:
    length = len(ACCEPTED_BODY)
    repeated = (
        ("Content-Type", PLAIN_TEXT),
        ("Content-Length", str(length)),
        ("X-Request-Id", "1"),
        ("X-Request-Id", "2"),
    )
    return replace(ACCEPTED_REPLY, head=make_head(200, length, headers=repeated))


_DROP = Reply(ending=Ending.CLOSE)
_CLOSE_HEADER = (("Connection", "close"),)
_REPLIES: dict[str, Callable[[Behaviour, int], Reply]] = {
    "ok": _ok,
    "code": _code,
    "numeric_code": _numeric_code,
    "echo_token": _echo_token,
    "echo_malformed": _echo_malformed,
    "hostile": _hostile,
    "status": _status,
    "throttle": _throttle,
    "throttle_first": _throttle_first,
    "flaky": _flaky,
    "flaky_drop": _flaky_drop,
    "slow": _slow,
    "slow_headers": _slow_headers,
    "drip": _drip,
    "hang": _always(Reply(wait_seconds=math.inf)),
    "drop": _always(_DROP),
    # Closing a socket that holds unread bytes resets the connection; so does this.
    "drop_before": _always(Reply(ending=Ending.RESET)),
    "reset": _always(Reply(ending=Ending.RESET)),
    "drop_mid": _always(
        Reply(
            head=ACCEPTED_REPLY.head,
            body=ACCEPTED_BODY[: len(ACCEPTED_BODY) // 2],
            ending=Ending.CLOSE,
        )
    ),
    "wrong_length": _always(
        Reply(
            head=make_head(200, len(ACCEPTED_BODY) + 100),
            body=ACCEPTED_BODY,
            ending=Ending.CLOSE,
        )
    ),
    **{name: _body(content) for name, content in ODD_BODIES.items()},
    "huge": lambda _, __: _huge(),
    "endless": _always(
        Reply(
            head=make_head(200, None, headers=(("Transfer-Encoding", "chunked"),)),
            body=f"{_CHUNK_BYTES:x}\r\n{' ' * _CHUNK_BYTES}\r\n".encode(),
            endless=True,
        )
    ),
    "gzip": _always(_gzip()),
    "gzip_bomb": lambda _, __: _gzip_bomb(),
    "http10": _always(
        replace(
            ACCEPTED_REPLY,
            head=make_head(200, None, version="HTTP/1.0", headers=_CLOSE_HEADER),
            ending=Ending.CLOSE,
        )
    ),
    "duplicate_headers": _always(_duplicate_headers()),
    "redirect": _redirect,
}
