"""Run the sandbox as a separate process, and print the settings to use it."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .contract import ANY_PAGE
from .sandbox import Sandbox


def exports(sandbox: Sandbox) -> str:
    """Return a line for a shell that makes programs use `sandbox`.

    The line contains only the token for every page (`*`). For tokens by page, use a JSON file and
    `HARASOCIAL_TOKENS_FILE`.
    """
    settings = {"HARASOCIAL_API_URL": sandbox.url}
    if ANY_PAGE in sandbox.tokens:
        settings["HARASOCIAL_TOKEN"] = sandbox.tokens[ANY_PAGE]
    return "export " + " ".join(f"{name}={shlex.quote(text)}" for name, text in settings.items())


def print_exports(sandbox: Sandbox) -> None:
    """Print the line of `exports`, and flush standard output."""
    sys.stdout.write(exports(sandbox) + "\n")
    sys.stdout.flush()


def serve_forever(
    host: str = "127.0.0.1",
    port: int = 0,
    tokens: Mapping[str, str] | None = None,
    *,
    on_ready: Callable[[Sandbox], None] = print_exports,
    **options: Any,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop and return. For a separate process.

    Args:
        host, port, tokens, options: as for `Sandbox`.
        on_ready: called with the sandbox when it listens.

    Raises:
        OSError: the sandbox cannot listen on the address.
    """
    ends = {signal.SIGTERM, signal.SIGINT}
    # Block the signals before the thread starts, because a thread inherits the blocked signals.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with Sandbox(host, port, tokens, **options) as sandbox:
            on_ready(sandbox)
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
