"""A server that answers by a script, byte for byte: for what no well-built server would do."""

from __future__ import annotations

import math
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from types import TracebackType

ACCEPTED_BODY = (
    b'{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'
)
#: Self-signed, with its key, for 127.0.0.1.
CERTIFICATE = Path(__file__).parent / "sandbox" / "localhost.pem"


class Ending(Enum):
    """Steps that end a connection; a script without one keeps it open for the next request."""

    #: In order: FIN.
    CLOSE = "close"
    #: At once: RST.
    RESET = "reset"


#: Bytes to send, or seconds to wait (infinity: until the client goes), or how it ends.
Step = bytes | float | Ending
Script = Callable[[], Iterable[Step]]


def reply(body: bytes = ACCEPTED_BODY, *headers: str, status: str = "200 OK") -> bytes:
    """Return a well-formed reply; it is as long as it says."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def steps(*script: Step) -> Script:
    """Return the script of these steps."""
    return lambda: script


def tls_context() -> ssl.SSLContext:
    """Return what a server needs to speak TLS for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


class RawServer:
    """Listens on a free port of the loopback address, a thread for each connection.

    Args:
        script: its steps follow each request that has come whole.
        reads: whether to wait for a request at all; if not, the steps follow the connecting.
        tls: a server's context, to speak TLS.
    """

    def __init__(
        self, script: Script, *, reads: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._script = script
        self._reads = reads
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.root_url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.url = f"{self.root_url}/social/messages.json"
        #: Connections taken, and those of them that have ended, from this side or the other.
        self.connections = 0
        self.ended = 0
        #: The requests that came whole.
        self.requests: list[bytes] = []
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        # Closing alone would leave the thread that accepts asleep.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                peer = self._tls.wrap_socket(peer, server_side=True)
            while not self._stopping.is_set():
                if self._reads and not self._read_request(peer):
                    return
                for step in self._script():
                    if not self._take(step, peer):
                        return
                if not self._reads:
                    self._wait(math.inf, peer)
                    return
        except OSError:
            pass  # the client went away, which most scripts make it do
        finally:
            peer.close()
            with self._counting:
                self.ended += 1

    def _read_request(self, peer: socket.socket) -> bool:
        """Read a request to its end; return whether there was one."""
        received = b""
        while True:
            head, found, body = received.partition(b"\r\n\r\n")
            if found:
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if _is_length(line)), 0
                )
                if len(body) >= length:
                    self.requests.append(received)
                    return True
            piece = peer.recv(65536)
            if not piece:
                return False
            received += piece

    def _take(self, step: Step, peer: socket.socket) -> bool:
        """Take one step; return whether the connection goes on."""
        if isinstance(step, bytes):
            peer.sendall(step)
        elif isinstance(step, float):
            return self._wait(step, peer)
        else:
            if step is Ending.RESET:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        return True

    def _wait(self, seconds: float, peer: socket.socket) -> bool:
        """Wait; return whether the client may still be there."""
        if math.isinf(seconds):
            while peer.recv(65536):
                pass
            return False
        return not self._stopping.wait(seconds)


def _is_length(line: bytes) -> bool:
    return line[:15].lower() == b"content-length:"
