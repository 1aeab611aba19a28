"""Write output files: private, and complete or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

Write = Callable[[str], object]


@contextmanager
def open_output(output: Path, option: str) -> Iterator[Write]:
    """Yield a function that writes text to `output`. A file gets its name only when it is complete.

    Args:
        output: `-` is standard output; a pipe or a device is written to directly.
        option: the name of its option, for the error.

    Raises:
        click.BadParameter: the file cannot be written.
    """
    if str(output) == "-":
        yield lambda text: click.echo(text, nl=False)
        return
    if output.exists() and not output.is_file():
        # A pipe or a device.
        with output.open("w", encoding="utf-8", newline="") as file:
            yield file.write
        return
    part = output.with_name(output.name + ".part")
    try:
        # Other users of this host must not read recipients and messages.
        private = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise click.BadParameter(
            f"cannot write {output}: {error.strerror}", param_hint=option
        ) from None
    try:
        with os.fdopen(private, "w", encoding="utf-8", newline="") as file:
            yield file.write
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
