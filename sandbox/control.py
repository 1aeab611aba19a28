"""The paths under `/_sandbox/`: what a test or a person asks of a sandbox in another process."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

from .journal import ReceivedJob, Totals
from .wire import JSON, Head, Reply, make_reply

if TYPE_CHECKING:
    from .endpoint import Endpoint

PREFIX = "/_sandbox/"

#: What stands where a token was.
MASK = "***"


def answer(endpoint: Endpoint, head: Head, body: bytes) -> Reply:
    """Return the reply to a request whose path starts with `PREFIX`."""
    route = _ROUTES.get(head.target[len(PREFIX) :])
    if route is None:
        paths = ", ".join(PREFIX + name for name in _ROUTES)
        return _json(404, {"error": f"the paths are {paths}"})
    method, handler = route
    if head.method != method:
        return _json(405, {"error": f"use {method}"}, headers=(("Allow", method),))
    return handler(endpoint, body)


def _health(endpoint: Endpoint, _: bytes) -> Reply:
    return _json(200, {"healthy": True})


def _received(endpoint: Endpoint, _: bytes) -> Reply:
    jobs = [_as_object(job) for job in endpoint.journal.jobs()]
    return _json(200, {"totals": _as_object(endpoint.journal.totals()), "jobs": jobs})


def _as_object(record: ReceivedJob | Totals) -> dict[str, Any]:
    """Return a record's fields by name: `dataclasses.asdict` copies deeply, ten times as slow."""
    return {name: getattr(record, name) for name in record.__slots__}


def _requests(endpoint: Endpoint, _: bytes) -> Reply:
    requests = [
        {
            "method": request.method,
            "path": request.path,
            "headers": [
                (name, MASK if name.lower() == "authorization" else value)
                for name, value in request.headers
            ],
            # The text is for reading, the base64 for comparing letter by letter.
            "body": request.body.decode(errors="replace"),
            "body_base64": b64encode(request.body).decode(),
        }
        for request in endpoint.journal.requests()
    ]
    return _json(200, {"requests": requests})


def _reset(endpoint: Endpoint, _: bytes) -> Reply:
    endpoint.journal.reset()
    return _json(200, {"reset": True})


def _switch(endpoint: Endpoint, body: bytes) -> Reply:
    try:
        endpoint.switches = endpoint.switches.changed(json.loads(body))
    except RecursionError:
        return _json(400, {"error": "the body is nested too deeply"})
    except ValueError as error:
        return _json(400, {"error": str(error)})
    switches = endpoint.switches
    return _json(
        200,
        {
            "fail_with": switches.fail_with,
            "latency_seconds": switches.latency_seconds,
            "tokens": dict.fromkeys(switches.tokens, MASK),
        },
    )


def _json(status: int, document: Any, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    body = json.dumps(document).encode() + b"\n"
    return make_reply(status, body, headers=headers, content_type=JSON)


_ROUTES = {
    "health": ("GET", _health),
    "received": ("GET", _received),
    "requests": ("GET", _requests),
    "reset": ("POST", _reset),
    "switch": ("POST", _switch),
}
