"""`flower`: run Flower with our pages and metrics; a login is required on a public address."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from ..input.options import examples

#: The operating system silently wraps higher port numbers around.
_LAST_PORT = 65535


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "flower",
        "flower --port 8888",
        "flower --address 0.0.0.0   # needs HARASOCIAL_FLOWER_BASIC_AUTH=user:password",
        "flower --read-only",
    )
    + """

\b
Common options of Flower:
  --port 5555              the port to listen on
  --address 127.0.0.1      the address; any other address requires a login
  --basic-auth u:p         the login, if not in HARASOCIAL_FLOWER_BASIC_AUTH;
                           the password needs at least 15 characters
  --unix-socket PATH       listen on a socket; open to your user, with a login to your group
  --url-prefix flower      behind a proxy that serves it under /flower
  --xheaders               behind a proxy: take the client's address from X-Real-Ip
  --certfile, --keyfile    serve HTTPS
  --read-only              nothing can be changed or replayed
  --read-only=false        Flower's controls of workers and tasks work too
  --max-tasks 100000       tasks kept in memory; the Failures page does not use them
All of them: https://flower.readthedocs.io/en/latest/config.html
""",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTIONS]...")
def flower(options: tuple[str, ...]) -> None:
    """Run Flower, the web interface for jobs and workers.

    On the page /failures you can find and replay failed jobs, also after a restart.
    This is `celery -A harasocial_dispatch.worker flower`, with all options of Flower.
    """
    # Imported here: Flower is an extra, reads the settings and is slow to import.
    try:
        from flower.options import options as known  # noqa: PLC0415
    except ModuleNotFoundError as error:
        # Without Flower, `flower` can be the repository's own folder.
        if error.name not in ("flower", "flower.options"):
            raise
        raise click.UsageError(
            "Flower is not installed; run: pip install 'harasocial-dispatch[flower]'"
        ) from None
    arguments = list(_joined(options, known))
    from ...flower.extension import extend  # noqa: PLC0415
    from ...worker.celery_app import app, settings  # noqa: PLC0415

    extend(app, settings)
    try:
        raise SystemExit(app.start(["flower", *arguments]))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise
        raise click.UsageError(
            f"Flower cannot listen there: {error.strerror}. Give it another --port or --address."
        ) from None


def _joined(options: Sequence[str], known: Any) -> Iterator[str]:
    """Yield each option as `--name=value`, the form that Flower reads.

    Flower ignores unknown options, so a misspelled --basic-auth would disable the login.
    """
    waiting = iter(options)
    for option in waiting:
        name, equals, value = option.partition("=")
        definition = known._options.get(name.lstrip("-").replace("_", "-"))
        if not name.startswith("--") or definition is None:
            raise click.UsageError(f"Flower has no option {name!r}.")
        if definition.type is bool:
            yield option
            continue
        given = value if equals else next(waiting, None)
        if given is None or (given.startswith("--") and not equals):
            raise click.UsageError(f"The option {name} needs a value.")
        if not definition.multiple:
            _refuse_wrong_number(name, given, definition.type)
        yield f"{name}={given}"


def _refuse_wrong_number(name: str, given: str, kind: type) -> None:
    """Raise a usage error if Flower would fail with a traceback or listen on another port."""
    if kind not in (int, float):
        return
    highest = _LAST_PORT if name == "--port" else math.inf
    with suppress(ValueError):
        if kind(given) <= highest:
            return
    what = "a whole number" if kind is int else "a number"
    limit = f" up to {highest}" if highest is _LAST_PORT else ""
    raise click.UsageError(f"The option {name} needs {what}{limit}, not {given!r}.")
