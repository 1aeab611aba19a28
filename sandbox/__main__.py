"""`python -m harasocial_dispatch.sandbox`: the sandbox as a separate process."""

from __future__ import annotations

import argparse

from .contract import ANY_PAGE
from .control import DEFAULT_TOKEN
from .standalone import serve_forever


def main() -> None:
    """Read the options, print the settings, and serve until a signal."""
    parser = argparse.ArgumentParser(
        prog="python -m harasocial_dispatch.sandbox",
        description="A stand-in for the API. Prints the settings to paste.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 selects a free one")
    parser.add_argument("--token", default=DEFAULT_TOKEN, help="the token of every page")
    options = parser.parse_args()
    try:
        serve_forever(options.host, options.port, {ANY_PAGE: options.token})
    except OSError as error:
        parser.exit(1, f"cannot listen on {options.host} port {options.port}: {error}\n")


if __name__ == "__main__":
    main()
