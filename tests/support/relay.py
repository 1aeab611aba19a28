"""A TCP relay in front of a server. It can block connections, slow them down, and use TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator


class Relay:
    """Listens on a free port of 127.0.0.1 and relays each connection to `target_port`.

    Args:
        tls: a server context. Clients then use TLS, but the target does not.
    """

    def __init__(self, target_port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._target = ("127.0.0.1", target_port)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        #: Number of accepted connections, and of connections with an incomplete TLS handshake.
        self.connections = 0
        self.refused_handshakes = 0
        #: All data from clients, decrypted.
        self.received = bytearray()
        #: Delay before data is relayed, and delay between the bytes of a reply.
        self.delay_seconds = self.drip_seconds = 0.0
        self._held = False
        self._stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Accept connections without replies, and stop relaying on open connections."""
        self._held = True

    def release(self) -> None:
        """Relay new connections again. The blocked connections stay silent forever."""
        self._held = False

    def stop(self) -> None:
        """Close everything."""
        self._stopping.set()
        self._listener.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self._held:
                self._stopping.wait()
                return
            if self._tls is not None:
                try:
                    client = self._tls.wrap_socket(client, server_side=True)
                except OSError:
                    self.refused_handshakes += 1
                    return
            with socket.create_connection(self._target) as server:
                back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
                back.start()
                self._pump(client, server, self.received)
                back.join()

    def _pump(
        self, source: socket.socket, sink: socket.socket, seen: bytearray | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if seen is not None:
                    seen.extend(data)
                if self._held:
                    self._stopping.wait()
                    return
                if self.delay_seconds:
                    self._stopping.wait(self.delay_seconds)
                for piece in self._pieces(data, answer=seen is None):
                    sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _pieces(self, data: bytes, *, answer: bool) -> Iterator[bytes]:
        """Yield `data` in pieces, with the configured delays."""
        start = 0
        while answer and self.drip_seconds and start < len(data):
            yield data[start : start + 1]
            start += 1
            self._stopping.wait(self.drip_seconds)
        yield data[start:]
