"""The sandbox as a separate process."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from harasocial_dispatch.sandbox import Sandbox, exports
from support.exact_client import Client
from support.harness import present
from support.processes import run_program

COMMAND = [sys.executable, "-m", "harasocial_dispatch.sandbox"]


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the sandbox, and yield it with the printed settings."""
    running = subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        export, *settings = shlex.split(running.stdout.readline())
        assert export == "export"
        yield running, dict(setting.split("=", 1) for setting in settings)
    finally:
        running.kill()
        running.communicate()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_settings_serves_and_ends_cleanly(end: signal.Signals) -> None:
    """The printed settings work, and both signals end the process with status 0."""
    with process("--token", "a b$c") as (running, settings):
        address = urlsplit(settings["HARASOCIAL_API_URL"])
        assert settings["HARASOCIAL_TOKEN"] == "a b$c"
        there = Client(Sandbox(present(address.hostname), present(address.port)))
        request = there.request(there.body(), authorization="Bearer a b$c", connection="close")

        assert there.exchange(request).status == 200
        assert there.control("GET", "received")["totals"]["accepted"] == 1
        running.send_signal(end)
        assert running.wait(timeout=60) == 0


def test_a_port_in_use_is_reported_in_one_line(sandbox: Sandbox) -> None:
    """The message has the address, and there is no traceback."""
    failed = run_program(*COMMAND, "--port", str(sandbox.port))

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"cannot listen on 127.0.0.1 port {sandbox.port}: ")
    assert failed.stderr.count("\n") == 1


def test_the_printed_line_has_the_url_and_the_common_token() -> None:
    """The line has the URL, and the token for every page if there is one."""
    with Sandbox(tokens={"*": "it's"}) as sandbox:
        assert exports(sandbox) == (
            f"export HARASOCIAL_API_URL={sandbox.url} HARASOCIAL_TOKEN='it'\"'\"'s'"
        )
        sandbox.tokens = {"1": "one"}
        assert exports(sandbox) == f"export HARASOCIAL_API_URL={sandbox.url}"


def test_the_url_can_be_connected_to() -> None:
    """A wildcard address is replaced, and an IPv6 address is in brackets."""
    with Sandbox("0.0.0.0") as sandbox:
        assert sandbox.url == f"http://127.0.0.1:{sandbox.port}/social/messages.json"
    assert Sandbox("::1", 8080).url == "http://[::1]:8080/social/messages.json"
