"""The sandbox as a process of its own, and the settings that lead to it."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .contract import ANY_PAGE
from .sandbox import Sandbox


def exports(sandbox: Sandbox) -> str:
    """Return the line to paste into a shell, so that programs talk to `sandbox`.

    Only a token for every page (`*`) fits into the line; tokens by page belong into the JSON
    file that `HARASOCIAL_TOKENS_FILE` names.
    """
    settings = {"HARASOCIAL_API_URL": sandbox.url}
    if ANY_PAGE in sandbox.tokens:
        settings["HARASOCIAL_TOKEN"] = sandbox.tokens[ANY_PAGE]
    return "export " + " ".join(f"{name}={shlex.quote(text)}" for name, text in settings.items())


def print_exports(sandbox: Sandbox) -> None:
    """Write the line of `exports` to standard output at once."""
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
    """Serve until SIGTERM or SIGINT comes, then stop and return. For a process of its own.

    Args:
        host, port, tokens, options: as for `Sandbox`.
        on_ready: called with the sandbox once it listens.

    Raises:
        OSError: if the address cannot be listened on.
    """
    ends = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the thread starts, since a thread inherits what is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with Sandbox(host, port, tokens, **options) as sandbox:
            on_ready(sandbox)
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
