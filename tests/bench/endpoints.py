"""The endpoints that receive the POSTs, each in a process that is not measured.

nginx needs the least CPU time, if it is installed. The lean endpoint supports delays and TLS. The
sandbox validates every request and records its arrival time.
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Protocol

from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.sandbox.embedded_valkey import free_port

#: A self-signed certificate for 127.0.0.1 with its key. It is also the trusted certificate.
CERTIFICATE = Path(__file__).parents[1] / "support" / "localhost.pem"

_PATH = "/social/messages.json"
_ACCEPTED = '{"data":{"success":true},"has_error":false,"error_code":null,"error_message":null}'
_NGINX = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    keepalive_requests 10000000;
    default_type application/json;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = {path} {{ return 200 '{accepted}'; }}
        location = /count {{ stub_status; }}
    }}
}}
"""


class Endpoint(Protocol):
    """An endpoint that receives POSTs at `url`."""

    name: str
    url: str

    def count(self) -> int:
        """Return the number of POSTs since the start or the last `forget`."""

    def forget(self) -> None:
        """Start counting from 0 again."""

    def stop(self) -> None:
        """Stop it."""


class SandboxEndpoint:
    """The sandbox, which validates every request and records its arrival time."""

    name = "harasocial_dispatch.sandbox"

    def __init__(self) -> None:
        self.sandbox = Sandbox(keep_requests=0).start()
        self.url = self.sandbox.url

    def count(self) -> int:
        return self.sandbox.totals().posts

    def forget(self) -> None:
        self.sandbox.reset()

    def stop(self) -> None:
        self.sandbox.stop()


class LeanEndpoint:
    """lean_endpoint.py, which sends the same reply to every POST after `delay_seconds`."""

    name = "lean_endpoint.py"

    def __init__(self, *, delay_seconds: float = 0.0, tls: bool = False) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).parent / "lean_endpoint.py")),
                *("--delay-seconds", str(delay_seconds)),
                *(("--tls", str(CERTIFICATE)) if tls else ()),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise OSError(f"lean_endpoint.py ended, status {self._process.wait()}")
        root = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
        self.url = root + _PATH
        self._count_url = f"{root}/count"
        self._trust = ssl.create_default_context(cafile=CERTIFICATE) if tls else None
        self._forgotten = 0

    def count(self) -> int:
        with urllib.request.urlopen(self._count_url, timeout=60, context=self._trust) as reply:
            return int(reply.read()) - self._forgotten

    def forget(self) -> None:
        self._forgotten += self.count()

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


class Nginx:
    """nginx, with its own configuration and folder."""

    def __init__(self, program: str) -> None:
        said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
        self.name = said.stderr.strip().removeprefix("nginx version: ")
        self._folder = Path(tempfile.mkdtemp(prefix="bench-nginx-"))
        port = free_port(0)
        root = f"http://127.0.0.1:{port}"
        self.url = root + _PATH
        self._count_url = f"{root}/count"
        self._not_counted = 0
        config = self._folder / "nginx.conf"
        config.write_text(_NGINX.format(port=port, path=_PATH, accepted=_ACCEPTED))
        self._process = subprocess.Popen(
            [program, "-p", str(self._folder), "-c", str(config), "-e", "error.log"]
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                self.count()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)
            else:
                return

    def count(self) -> int:
        with urllib.request.urlopen(self._count_url, timeout=10) as reply:
            # "Active connections: 1 \nserver accepts handled requests\n 9 9 42 \n…"
            requests = int(reply.read().split(b"requests\n")[1].split()[2])
        # This request is counted too.
        self._not_counted += 1
        return requests - self._not_counted

    def forget(self) -> None:
        # Two steps, because count() changes the same number.
        counted = self.count()
        self._not_counted += counted

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def quickest() -> Endpoint:
    """Return nginx if it is installed and starts, or else the lean endpoint."""
    # Debian installs it in a folder that is only in root's PATH.
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin")
    if program is not None:
        try:
            return Nginx(program)
        except (OSError, IndexError, subprocess.CalledProcessError) as error:
            fallback = LeanEndpoint()
            fallback.name += f" ({program} cannot be used: {error})"
            return fallback
    return LeanEndpoint()
