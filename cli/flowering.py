"""`flower`: Flower with the Failures page, our metrics, and a login where others can reach it."""

from __future__ import annotations

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click

from .options import examples

#: Of a higher one, the system takes the remainder, without a word.
_LAST_PORT = 65535


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "flower",
        "flower --port 8888",
        "flower --address 0.0.0.0   # wants HARASOCIAL_FLOWER_BASIC_AUTH=user:password",
        "flower --read-only",
    )
    + """

\b
Often used, of Flower's own:
  --port 5555              the port to listen on
  --address 127.0.0.1      the address; other than this, a login is required
  --basic-auth u:p         the login, if not in HARASOCIAL_FLOWER_BASIC_AUTH
  --url-prefix flower      behind a proxy that serves it under /flower
  --certfile, --keyfile    to speak HTTPS
  --read-only              nothing can be changed, nor sent again
  --read-only=false        Flower's controls of workers and tasks work, too
  --max-tasks 100000       tasks kept in memory; the Failures page keeps nothing there
All of them: https://flower.readthedocs.io/en/latest/config.html
""",
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[FLOWER OPTIONS]...")
def flower(options: tuple[str, ...]) -> None:
    """Run Flower: workers, tasks, and what failed, on a web page.

    Failed jobs are at /failures: found, understood and sent again, the same after every restart.
    This is `celery -A harasocial_dispatch.worker flower`; all options are Flower's.
    """
    # Imported here: it is an extra, it reads the settings, and it takes a moment.
    try:
        from flower.options import options as known  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "flower":
            raise
        raise click.UsageError(
            "Flower is not installed; do: pip install 'harasocial-dispatch[flower]'"
        ) from None
    arguments = list(_joined(options, known))
    from ..worker import app  # noqa: PLC0415
    from ..worker.celery_app import settings  # noqa: PLC0415
    from ..worker.flower import extend  # noqa: PLC0415

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
    """Yield each option as Flower reads it, `--name=value`, whether or not it was written so.

    Flower leaves out what it does not know; a misspelt --basic-auth must not go by unnoticed.
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
    """Raise a usage error where Flower would end with a traceback, or listen elsewhere."""
    if kind not in (int, float):
        return
    highest = _LAST_PORT if name == "--port" else math.inf
    with suppress(ValueError):
        if kind(given) <= highest:
            return
    what = "a whole number" if kind is int else "a number"
    limit = f" up to {highest}" if highest is _LAST_PORT else ""
    raise click.UsageError(f"The option {name} needs {what}{limit}, not {given!r}.")
