"""A real Flower at debug level, and all its pages."""

from __future__ import annotations

from pathlib import Path

from .flower_harness import Flower
from .harness import eventually


class WatchedFlower(Flower):
    """`harasocial-dispatch flower`, with access to every page and log line.

    Args:
        login: the user and password in `env`.
    """

    def __init__(self, env: dict[str, str], folder: Path, login: tuple[str, str]) -> None:
        super().__init__(env, folder, "--logging=debug", "--debug=yes", new_interpreter=True)
        self._login = login

    def start(self, *, wait: bool = True) -> Flower:
        """Start Flower, and wait until it receives events."""
        super().start(wait=wait)
        if wait:
            self.wait_for_subscription()
        return self

    def wait_for(self, job_id: str) -> None:
        """Wait until Flower has received the events of this job."""
        path = f"api/task/info/{job_id}"
        eventually(lambda: self.page(path).startswith("200"), what="the job in Flower")

    def page(self, path: str) -> str:
        """Return a page with its status and headers."""
        reply = self.get(f"/{path}", auth=self._login)
        headers = "\n".join(f"{name}: {text}" for name, text in reply.headers.items())
        return f"{reply.status_code} {path}\n{headers}\n\n{reply.text}"

    def pages(self, job_ids: list[str]) -> str:
        """Return every page that shows data of a job, a worker or a setting."""
        paths = ["", "workers", "tasks", "broker", "unknown"]
        paths += ["failures", "failures/waiting", "failures/replays"]
        paths += [f"{kind}/{job_id}" for kind in ("failures", "task") for job_id in job_ids]
        workers = self.get("/api/workers?refresh=1", auth=self._login).json()
        paths += [f"worker/{worker}" for worker in workers]
        return "\n".join(map(self.page, paths))

    def data(self) -> str:
        """Return the data of Flower's API."""
        paths = ["api/workers", "api/tasks", "api/queues/length", "workers?json=1"]
        paths += ["tasks/datatable?draw=1&start=0&length=99&order[0][column]=0"]
        paths += ["metrics", "failures/export.csv", "failures/export.jsonl"]
        return "\n".join(map(self.page, paths))
