"""A real Flower, at debug level, and its pages."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from stage import eventually, free_port


class FlowerProcess:
    """Runs `harasocial-dispatch flower` on a free port.

    Args:
        credentials: `user:password`, as `environment` has them.
    """

    def __init__(self, environment: dict[str, str], folder: Path, credentials: str) -> None:
        self._log = folder / "flower.log"
        self._credentials = credentials
        port = free_port()
        self._root = f"http://127.0.0.1:{port}"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from harasocial_dispatch.cli import main; main()"),
                    *("flower", f"--port={port}", "--logging=debug", "--debug=yes"),
                ],
                env=environment,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, job_id: str) -> None:
        """Wait until it answers, and knows of this job by its events."""
        eventually(lambda: self._knows(job_id), what=f"Flower's answer; its log: {self._log}")

    def _knows(self, job_id: str) -> bool:
        assert self._process.poll() is None, self.log()
        try:
            return self.page(f"api/task/info/{job_id}").startswith("200")
        except OSError:
            return False

    def page(self, path: str) -> str:
        """Return a page with its status and headers, whatever they are."""
        login = base64.b64encode(self._credentials.encode()).decode()
        request = urllib.request.Request(
            f"{self._root}/{path}", headers={"Authorization": f"Basic {login}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return f"{response.status} {path}\n{response.headers}\n{response.read().decode()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {path}\n{error.headers}\n{error.read().decode()}"

    def pages(self, job_ids: list[str]) -> str:
        """Return every page on which something of a job, a worker or a setting is shown."""
        workers = json.loads(self.page("api/workers").partition("\n\n")[2])
        paths = ["", "workers", "tasks", "broker"]
        paths += ["failures", "failures/waiting", "failures/replays"]
        paths += [f"{kind}/{job_id}" for kind in ("failures", "task") for job_id in job_ids]
        paths += [f"worker/{worker}" for worker in workers]
        return "\n".join(map(self.page, paths))

    def data(self) -> str:
        """Return what it tells programs."""
        paths = ["api/workers", "api/tasks"]
        paths += ["metrics", "failures/export.csv", "failures/export.jsonl"]
        return "\n".join(map(self.page, paths))

    def log(self) -> str:
        """Return all that it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
