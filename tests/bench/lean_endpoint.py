"""A fast endpoint that accepts every POST, after an optional delay. It prints its port.

python lean_endpoint.py [--delay-seconds 0.2] [--tls FILE]

It validates nothing. GET /count returns the number of POSTs. It serves more than 10,000 requests
per second on one core. The sandbox, which validates each request, does not.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys

_BODY = b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'


def _reply(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


_ACCEPTED = _reply(_BODY)
_BLANK_LINE = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Connection(asyncio.Protocol):
    """A connection with a client that waits for each reply before its next request."""

    posts = 0
    delay_seconds = 0.0

    def __init__(self) -> None:
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(_BLANK_LINE)) >= 0:
            head = self._unread[:end].lower()
            _, _, after = head.partition(_LENGTH)
            size = end + len(_BLANK_LINE) + int(after.partition(b"\r")[0] or 0)
            if len(self._unread) < size:
                return
            self._unread = self._unread[size:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        if not head.startswith(b"post "):
            self._write(_reply(b"%d" % Connection.posts))
            return
        Connection.posts += 1
        if self.delay_seconds:
            asyncio.get_running_loop().call_later(self.delay_seconds, self._write, _ACCEPTED)
        else:
            self._write(_ACCEPTED)

    def _write(self, reply: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(reply)


async def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-seconds", type=float, default=0.0)
    parser.add_argument("--tls", metavar="FILE", help="certificate and key, to serve HTTPS")
    options = parser.parse_args()
    Connection.delay_seconds = options.delay_seconds
    context = None
    if options.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls)
    server = await asyncio.get_running_loop().create_server(
        Connection, "127.0.0.1", 0, ssl=context, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
