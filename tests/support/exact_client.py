"""A client with plain sockets, so that tests check the exact bytes."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

from harasocial_dispatch.sandbox import Sandbox

#: Timeout for everything in these tests.
DEADLINE_SECONDS = 60.0


@dataclass(frozen=True)
class Received:
    """The received data, and the state of the connection: `closed`, `reset` or `open`."""

    data: bytes
    ending: str

    @property
    def status(self) -> int:
        """The status of the first line."""
        return int(self.data.split(b" ", 2)[1])

    @property
    def head(self) -> str:
        """The first line and the headers, without the empty line after them."""
        return self.data.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        """The data after the headers."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Sends exact requests to a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def body(self, payload_id: str = "payload", **changes: Any) -> dict[str, Any]:
        """Return the documented body. A change to None removes the field."""
        body = {
            "messaging_type": "harasocial_facebook_payload_id",
            "recipient": {"id": "2560816460648749"},
            "message": {"payload_id": payload_id},
            "page_id": "500725830264749",
            "metadata": "order 1001",
            **changes,
        }
        return {name: value for name, value in body.items() if value is not None}

    def request(
        self,
        body: bytes | dict[str, Any],
        *,
        method: str = "POST",
        path: str = "/social/messages.json",
        **headers: str | None,
    ) -> bytes:
        """Return the documented request. None removes a header, and `_` becomes a dash."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        values = {
            "host": "sandbox",
            "accept": "text/plain",
            "authorization": "Bearer sandbox-token",
            "content_type": "application/json-patch+json",
            "content_length": str(len(content)),
            **headers,
        }
        lines = [f"{method} {path} HTTP/1.1"]
        lines += [f"{n.replace('_', '-')}: {v}" for n, v in values.items() if v is not None]
        return "\r\n".join([*lines, "", ""]).encode() + content

    def connect(self) -> socket.socket:
        """Open a connection with a timeout."""
        return socket.create_connection(
            (self.sandbox.host, self.sandbox.port), timeout=DEADLINE_SECONDS
        )

    def exchange(
        self, request: bytes, *, silence_seconds: float = DEADLINE_SECONDS, most: int = 10**9
    ) -> Received:
        """Send bytes on a new connection. Receive until the end, a timeout, or `most` bytes."""
        with self.connect() as connection:
            connection.sendall(request)
            connection.settimeout(silence_seconds)
            data = bytearray()
            ending = "open"
            while len(data) < most:
                try:
                    piece = connection.recv(1 << 20)
                except ConnectionResetError:
                    ending = "reset"
                    break
                except TimeoutError:
                    break
                if not piece:
                    ending = "closed"
                    break
                data += piece
        return Received(bytes(data), ending)

    def post(self, payload_id: str = "payload", **changes: Any) -> Received:
        """POST a message, and request that the connection is closed after the reply."""
        return self.exchange(self.request(self.body(payload_id, **changes), connection="close"))

    def control(self, method: str, name: str, document: Any = None) -> Any:
        """Call a path under `/_sandbox/` and return the JSON of its reply."""
        body = b"" if document is None else json.dumps(document).encode()
        request = self.request(body, method=method, path=f"/_sandbox/{name}", connection="close")
        return self.exchange(request).json
