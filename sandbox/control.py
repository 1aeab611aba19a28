"""The switches of a sandbox, and the paths under `/_sandbox/` that read and change it."""

from __future__ import annotations

import json
import sys
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .journal import Journal, ReceivedJob, Totals
from .reply import JSON, make_reply
from .request import Headers, RawRequest

PREFIX = "/_sandbox/"

#: The default token of every page.
DEFAULT_TOKEN = "sandbox-token"  # noqa: S105 - it gives access to nothing but the sandbox
#: Replaces tokens in replies.
MASK = "***"


class Switches:
    """The switches of a running sandbox. Read the attributes; call `change` to change them."""

    #: page_id, or `*` for every other page → token.
    tokens: Mapping[str, str]
    #: An HTTP status from 200 to 599 for the reply to every POST; None to disable it.
    fail_with: int | None
    #: Seconds by which the reply to every POST is delayed.
    latency_seconds: float

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self.change({"tokens": tokens, "fail_with": None, "latency_seconds": 0.0})

    def change(self, changes: Any) -> None:
        """Apply `changes`, a mapping of switch names to values.

        Raises:
            ValueError: a name or a value is invalid; nothing is changed then.
        """
        if not isinstance(changes, Mapping) or not set(changes) <= set(_CHECKS):
            raise ValueError(f"the switches are an object with some of {', '.join(_CHECKS)}")
        checked = {name: _CHECKS[name](value) for name, value in changes.items()}
        for name, value in checked.items():
            setattr(self, name, value)


def _check_tokens(tokens: Any) -> Mapping[str, str]:
    if not isinstance(tokens, Mapping) or not all(
        isinstance(text, str) and text for pair in tokens.items() for text in pair
    ):
        raise ValueError("tokens must map page ids, or *, to tokens: strings, not empty")
    return MappingProxyType(dict(tokens))


def _check_fail_with(status: Any) -> int | None:
    if status is None or (type(status) is int and 200 <= status <= 599):
        return status
    raise ValueError("fail_with must be an HTTP status from 200 to 599, or null (None)")


def _check_latency_seconds(seconds: Any) -> float:
    if type(seconds) not in {int, float} or not 0 <= seconds <= sys.float_info.max:
        raise ValueError("latency_seconds must be a number of seconds, 0 or more")
    return float(seconds)


_CHECKS = {
    "tokens": _check_tokens,
    "fail_with": _check_fail_with,
    "latency_seconds": _check_latency_seconds,
}


def control_reply(request: RawRequest, journal: Journal, switches: Switches) -> bytes:
    """Return the reply to a request whose path starts with `PREFIX`."""
    methods = {"health": "GET", "received": "GET", "requests": "GET"}
    methods |= {"reset": "POST", "switch": "POST"}
    name = request.path.removeprefix(PREFIX)
    if name not in methods:
        paths = ", ".join(PREFIX + name for name in methods)
        return _json(404, {"error": f"the paths are {paths}"})
    if request.method != methods[name]:
        error = {"error": f"use {methods[name]}"}
        return _json(405, error, headers=(("Allow", methods[name]),))
    match name:
        case "health":
            return _json(200, {"healthy": True})
        case "received":
            jobs = [_as_object(job) for job in journal.jobs()]
            return _json(200, {"totals": _as_object(journal.totals()), "jobs": jobs})
        case "requests":
            return _json(200, {"requests": [_masked(raw) for raw in journal.requests()]})
        case "reset":
            journal.reset()
            return _json(200, {"reset": True})
        case _:
            return _switch(request.body, switches)


def _as_object(record: ReceivedJob | Totals) -> dict[str, Any]:
    """Return a record's fields by name, ten times faster than `dataclasses.asdict`."""
    return {name: getattr(record, name) for name in record.__slots__}


def _masked(request: RawRequest) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "headers": [
            (name, MASK if name.lower() == "authorization" else value)
            for name, value in request.headers
        ],
        # The text is for people, the base64 for an exact comparison.
        "body": request.body.decode(errors="replace"),
        "body_base64": b64encode(request.body).decode(),
    }


def _switch(body: bytes, switches: Switches) -> bytes:
    try:
        switches.change(json.loads(body))
    except RecursionError:
        return _json(400, {"error": "the body is nested too deeply"})
    except ValueError as error:
        return _json(400, {"error": str(error)})
    return _json(
        200,
        {
            "fail_with": switches.fail_with,
            "latency_seconds": switches.latency_seconds,
            "tokens": dict.fromkeys(switches.tokens, MASK),
        },
    )


def _json(status: int, document: Any, headers: Headers = ()) -> bytes:
    body = json.dumps(document).encode() + b"\n"
    return make_reply(status, body, headers=headers, content_type=JSON)
