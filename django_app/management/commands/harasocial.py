"""`manage.py harasocial`: the command `harasocial-dispatch` with Django's settings."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from ....cli import main


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Runs harasocial-dispatch with the given arguments."""

    help = "Run harasocial-dispatch with Django's settings, for example `harasocial worker`."
    # No system checks: they may open database connections, which the worker's processes would
    # share.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "arguments",
            nargs=argparse.REMAINDER,
            help="A command of harasocial-dispatch and its options; `help` lists the commands.",
        )

    def handle(self, *_: Any, arguments: list[str], **__: Any) -> None:
        main(arguments or ["--help"], program="manage.py harasocial")
