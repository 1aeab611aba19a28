"""The sandbox's server with a script for every reply, for replies that the sandbox cannot send."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from harasocial_dispatch.sandbox import RawRequest
from harasocial_dispatch.sandbox.contract import ACCEPTED_BODY, PATH
from harasocial_dispatch.sandbox.reply import Step
from harasocial_dispatch.sandbox.server import Server

#: A self-signed certificate for 127.0.0.1, with its key.
CERTIFICATE = Path(__file__).parent / "localhost.pem"

Script = Callable[[], Iterable[Step]]


def reply(body: bytes = ACCEPTED_BODY, *headers: str, status: str = "200 OK") -> bytes:
    """Return a well-formed reply with a correct length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def steps(*script: Step) -> Script:
    """Return the script of these steps."""
    return lambda: script


def tls_context() -> ssl.SSLContext:
    """Return the TLS context of a server at 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


class ScriptedServer(Server):
    """Replies to each request with the steps of `script`."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._reply, tls=tls)
        self.requests: list[RawRequest] = []
        self._script = script

    @property
    def url(self) -> str:
        """The URL to POST messages to."""
        return self.root_url + PATH

    def _reply(self, request: RawRequest) -> Generator[Step, None, None]:
        self.requests.append(request)
        yield from self._script()
