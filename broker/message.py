"""Validate messages from the broker: doorbells, and Celery's broadcasts (events, control, replies).

Another client of Redis can write any data, and an unexpected message ends the process in which
Celery or kombu reads it. So each message is validated first, and a new message is built from the
required parts. Other parts have no effect.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from typing import Any

from ..schemas import Settings

#: The task that a doorbell runs.
DISPATCH_TASK = "harasocial.dispatch"

#: Maximum size of a message. The events of a hundred jobs with long tracebacks are much smaller.
_MAX_BYTES = 8 * 1024 * 1024
_MAX_DEPTH = 20
#: Maximum value of a logical clock. No application sends this many messages.
_MAX_CLOCK = 2**50
#: The body of a task without arguments in Celery's protocol: [args, kwargs, embed].
_NO_ARGUMENTS = base64.b64encode(
    b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
).decode()
#: The headers that a broadcast may have → their types.
_BROADCAST_HEADERS: dict[str, tuple[type, ...]] = {
    "clock": (int,),
    "expires": (int, float),
    "ticket": (str,),
    "hostname": (str,),
}
#: The fields of a broadcast (an event, a command, or a reply to a command) → their types.
_EVENT_FIELDS: dict[str, tuple[type, ...]] = {
    "type": (str,),
    "hostname": (str,),
    "timestamp": (int, float),
    "utcoffset": (int, float),
    "clock": (int,),
    "pid": (int,),
}
_COMMAND_FIELDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "arguments": (dict, type(None)),
    "destination": (list, type(None)),
    "pattern": (str, type(None)),
    "matcher": (str, type(None)),
}

Message = dict[str, Any]


def queue_name(settings: Settings) -> str:
    """Return the name of the queue for doorbells of this namespace."""
    return f"{settings.namespace}.dispatch"


class UnreadableMessage(ValueError):
    """An invalid message. The text is the reason; it quotes nothing of the message."""


def read_doorbell(data: bytes, queue: str) -> Message:
    """Return a doorbell as kombu's message. Only the id is taken from `data`.

    Raises:
        UnreadableMessage: `data` is not a doorbell.
    """
    message = _envelope(data)
    headers = _typed(message, "headers", dict)
    if headers.get("task") != DISPATCH_TASK:
        raise UnreadableMessage("it is for another task")
    task_id = _typed(headers, "id", str)
    if not (0 < len(task_id) <= 64 and task_id.isascii() and task_id.isprintable()):
        raise UnreadableMessage("its id is not a task's id")
    if message.get("content-type") != "application/json":
        raise UnreadableMessage("its content is not JSON")
    return _message(
        _NO_ARGUMENTS,
        queue,
        {"lang": "py", "task": DISPATCH_TASK, "id": task_id, "root_id": task_id},
    )


def read_broadcast(data: bytes, queue: str) -> Message:
    """Return an event, a command or a reply to a command as kombu's message.

    Raises:
        UnreadableMessage: `data` is none of these.
    """
    message = _envelope(data)
    if message.get("content-type") != "application/json":
        raise UnreadableMessage("its content is not JSON")
    body = _typed(message, "body", str)
    encoded = _typed(message, "properties", dict).get("body_encoding") == "base64"
    try:
        data = base64.b64decode(body, validate=True) if encoded else body.encode()
    except ValueError:
        raise UnreadableMessage("its body is not base64 or UTF-8") from None
    content = _json(data)
    for part in content if isinstance(content, list) else [content]:
        _check_content(part)
    headers = {
        name: _typed(message["headers"], name, *types)
        for name, types in _BROADCAST_HEADERS.items()
        if name in _typed(message, "headers", dict)
    }
    _bound_clock(headers)
    return _message(base64.b64encode(json.dumps(content).encode()).decode(), queue, headers)


def _check_content(part: Any) -> None:
    if not isinstance(part, dict):
        raise UnreadableMessage("its body is not an object")
    if "type" in part:
        for name, types in _EVENT_FIELDS.items():
            _typed(part, name, *types)
        if part["type"].startswith("task-"):
            _typed(part, "uuid", str)
        _bound_clock(part)
    elif "method" in part:
        for name, types in _COMMAND_FIELDS.items():
            if name in part:
                _typed(part, name, *types)
        if part.get("reply_to") is not None:
            reply_to = _typed(part, "reply_to", dict)
            _typed(reply_to, "exchange", str)
            _typed(reply_to, "routing_key", str)


def _bound_clock(container: dict[str, Any]) -> None:
    """Remove an impossible logical clock. A process would adopt it and send it to others."""
    if not 0 <= container.get("clock", 0) <= _MAX_CLOCK:
        container["clock"] = 0


def _envelope(data: bytes) -> Message:
    message = _json(data)
    if not isinstance(message, dict):
        raise UnreadableMessage("it is not a JSON object")
    return message


def _json(data: bytes) -> Any:
    if len(data) > _MAX_BYTES:
        raise UnreadableMessage("it is too long")
    try:
        value = json.loads(data, object_pairs_hook=_plain_object)
    except UnreadableMessage:
        raise
    except ValueError:  # includes bytes that are not UTF-8, and very long numbers
        raise UnreadableMessage("it is not JSON") from None
    except RecursionError:
        raise UnreadableMessage("it is nested too deeply") from None
    # This limit is below that of every decoder. A decoder's limit depends on the depth of its
    # caller.
    level, depth = [value], 0
    while level := [
        inner
        for outer in level
        if isinstance(outer, (dict, list))
        for inner in (outer.values() if isinstance(outer, dict) else outer)
    ]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise UnreadableMessage("it is nested too deeply")
    return value


def _plain_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if "__type__" in made:  # kombu decodes these to Python objects
        raise UnreadableMessage("it names a Python type")
    return made


def _typed(container: dict[str, Any], name: str, *types: type) -> Any:
    """Return a value that has one of `types`. `name` must not come from the sender."""
    value = container.get(name)
    # bool is a subclass of int.
    if (
        not isinstance(value, types)
        or isinstance(value, bool)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise UnreadableMessage(f"its {name} is missing or of the wrong type")
    return value


def _message(body: str, queue: str, headers: dict[str, Any]) -> Message:
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": uuid.uuid4().hex,
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
