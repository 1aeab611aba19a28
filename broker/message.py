"""What may come from the broker: doorbells, and Celery's broadcasts (events, control, replies).

Anybody who can write to Redis can put anything there, and a message that Celery or kombu does not
expect ends the process that reads it. So each message is checked before they see it, and is built
again from the parts that are needed: what its sender added has no effect.
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

#: Events of a hundred jobs with long tracebacks are well below this.
_MAX_BYTES = 8 * 1024 * 1024
_MAX_DEPTH = 20
#: More messages than any application sends.
_MAX_CLOCK = 2**50
#: What Celery's task protocol sends for a task without arguments: [args, kwargs, embed].
_NO_ARGUMENTS = base64.b64encode(
    b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
).decode()
#: Header → its types, of those that a broadcast may have.
_BROADCAST_HEADERS: dict[str, tuple[type, ...]] = {
    "clock": (int,),
    "expires": (int, float),
    "ticket": (str,),
    "hostname": (str,),
}
#: Field → its types, in what a broadcast says: an event, a command, or the reply to one.
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
    """Return the queue that doorbells of this namespace go to."""
    return f"{settings.namespace}.dispatch"


class UnreadableMessage(ValueError):
    """A message that Celery must not see. Its text says why, and quotes nothing of it."""


def read_doorbell(data: bytes, queue: str) -> Message:
    """Return kombu's message for a doorbell. Only its id is taken from `data`.

    Raises:
        UnreadableMessage: it is no doorbell.
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
    """Return kombu's message for an event, for a command to workers, or for the reply to one.

    Raises:
        UnreadableMessage: it is none of them.
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
    """Forget a logical clock that cannot be true: a process would adopt it, and pass it on."""
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
    except ValueError:  # also for bytes that are not UTF-8, and for numbers that are too long
        raise UnreadableMessage("it is not JSON") from None
    except RecursionError:
        raise UnreadableMessage("it is nested too deeply") from None
    # Less deep than any decoder's own limit, which depends on who calls it.
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
    if "__type__" in made:  # kombu makes Python objects of these
        raise UnreadableMessage("it names a Python type")
    return made


def _typed(container: dict[str, Any], name: str, *types: type) -> Any:
    """Return a value that has one of `types`; `name` is one of ours, never the sender's."""
    value = container.get(name)
    # In Python, true and false are whole numbers.
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
