"""Call the sandbox without a network. The delays of its replies take no time."""

from __future__ import annotations

from ..sandbox import Sandbox
from ..sandbox.reply import HANG, Ending
from ..sandbox.request import RequestBuffer
from ..schemas import Settings
from ..worker.http import CallFailed, Reply
from ..worker.http.reply_reader import ReplyReader


def call(sandbox: Sandbox, request: bytes, settings: Settings) -> tuple[Reply | CallFailed, float]:
    """Return the end of a call, and the number of seconds that it would have taken.

    Args:
        sandbox: does not need to be started.
        request: the bytes from `Endpoint.request`.
        settings: the timeouts are used.
    """
    buffer = RequestBuffer()
    buffer.add(request)
    received = buffer.take_request()
    if received is None:
        raise ValueError("the request is not complete")
    reader = ReplyReader()
    seconds = 0.0
    steps = sandbox.handler(received)
    try:
        while True:
            # After the last step, the connection stays open, and the reply is incomplete.
            step = next(steps, HANG)
            if step is Ending.RESET:
                return reader.stop("connection_lost", "ConnectionResetError"), seconds
            if isinstance(step, Ending):
                return reader.end_of_stream(), seconds
            if isinstance(step, bytes):
                ending = reader.feed(step)
                if ending is not None:
                    return ending, seconds
                continue
            deadline = settings.safe_call_deadline_seconds
            late_at = min(deadline, seconds + settings.read_timeout_seconds)
            if seconds + step >= late_at:
                return reader.stop("timeout", "the call's deadline passed"), late_at
            seconds += step
    finally:
        steps.close()
        reader.close()
