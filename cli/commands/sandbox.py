"""`sandbox`: run a stand-in for the API, and optionally an embedded Valkey."""

from __future__ import annotations

import sys
from contextlib import ExitStack

import click

from ...schemas.setting_checks import may_be_token
from ..input.options import examples


def _refuse_blanks(_: click.Context, __: click.Parameter, token: str | None) -> str | None:
    # The same rule as for HARASOCIAL_TOKEN: a worker cannot send another token.
    if token is not None and not may_be_token(token):
        raise click.BadParameter("must be printable ASCII without spaces")
    return token


@click.command(
    epilog=examples("sandbox", "sandbox --port 8080 --token secret", "sandbox --redis")
    + """

Paste the line that it prints into another terminal. Commands there use the sandbox. The payload id
determines its reply:

\b
  sandbox:code:10/2018278   an error with this code
  sandbox:status:503        this HTTP status
  sandbox:flaky:2           503 twice, then accepted
  sandbox:throttle_first:1  429 once, then accepted
  sandbox:slow:3            accepted after 3 seconds
  sandbox:hang              no reply at all
  sandbox:drop              the connection is closed without a reply
  anything else             accepted
"""
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port to listen on, on 127.0.0.1.  [default: a free port]",
)
@click.option(
    "--token",
    metavar="T",
    callback=_refuse_blanks,
    help="The token that the sandbox accepts.  [default: sandbox-token]",
)
@click.option(
    "--redis/--no-redis",
    "with_redis",
    help="Also start an embedded Valkey. Its data is deleted at the end.",
)
def sandbox(port: int, token: str | None, with_redis: bool) -> None:
    """Run a stand-in for the API until Ctrl-C."""
    # Imported here: no other command needs it.
    from ...sandbox import (  # noqa: PLC0415
        DEFAULT_TOKEN,
        EmbeddedValkey,
        Sandbox,
        exports,
        serve_forever,
    )

    with ExitStack() as stack:
        redis_export = ""
        if with_redis:
            try:
                valkey = stack.enter_context(EmbeddedValkey())
            except ModuleNotFoundError as error:
                raise click.UsageError(str(error)) from None
            redis_export = f" HARASOCIAL_REDIS_URL={valkey.url}"

        listens = False

        def on_ready(ready: Sandbox) -> None:
            nonlocal listens
            listens = True
            click.echo(exports(ready) + redis_export)
            sys.stdout.flush()
            click.echo("Paste this line into another terminal; Ctrl-C ends the sandbox.", err=True)

        try:
            serve_forever("127.0.0.1", port, {"*": token or DEFAULT_TOKEN}, on_ready=on_ready)
        except OSError as error:
            if listens:
                # Standard output was closed, for example by the end of a pipe.
                raise
            raise click.BadParameter(
                f"cannot listen on {port}: {error}", param_hint="--port"
            ) from None
