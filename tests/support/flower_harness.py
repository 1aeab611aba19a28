"""A harness for tests of Flower: a real Flower, its ledger, and failed jobs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import redis
import requests
from harasocial_dispatch.ledger import Claim, Ledger
from harasocial_dispatch.schemas import (
    Settings,
    State,
    parse_new_job,
)

from .forked import Script, start_script
from .harness import DEADLINE_SECONDS, body, eventually, free_port, present
from .results import make_result

USER, PASSWORD = "operator", "vM3kq-Tz81-pLx-9dWe"
LOGIN = (USER, PASSWORD)

#: The type of the fixture `start_flower`. Its arguments are options of Flower, and settings by
#: name.
StartFlower = Callable[..., "Flower"]

_page_ids = itertools.count(70_000)


class Flower:
    """Flower in a separate process. It has the same port after a restart.

    Args:
        command: `harasocial-dispatch` or `celery`.
        new_interpreter: see `start_script`.
    """

    def __init__(
        self,
        env: dict[str, str],
        folder: Path,
        *options: str,
        command: str = "harasocial-dispatch",
        new_interpreter: bool = False,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_file = folder / f"flower-{self.port}.log"
        self._env, self._folder = env, folder
        self._words = [*_COMMANDS[command], "flower", f"--port={self.port}", *options]
        self._new_interpreter = new_interpreter
        self._process: Script | None = None

    def start(self, *, wait: bool = True) -> Flower:
        """Start Flower, and wait until it replies."""
        self._process = start_script(
            self._words,
            self._env,
            self._folder,
            self._log_file,
            new_interpreter=self._new_interpreter,
        )
        if wait:
            eventually(self._answers, what=f"Flower's answer; its log: {self._log_file}")
        return self

    @property
    def process(self) -> Script:
        """The process."""
        return present(self._process, "Flower's process")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log()
        try:
            # With a URL prefix, this address does not exist, but Flower still replies.
            requests.get(f"{self.url}/healthcheck", timeout=5)
        except (requests.ConnectionError, requests.Timeout):
            return False
        return True

    def wait_for_subscription(self) -> None:
        """Wait until Flower receives events: it answers earlier, and events until then are lost."""
        namespace = self._env["HARASOCIAL_NAMESPACE"]
        with redis.Redis.from_url(self._env["HARASOCIAL_REDIS_URL"]) as client:
            database = client.connection_pool.connection_kwargs.get("db", 0)
            channel = f"/{database}.{namespace}.events/task.multi"
            eventually(lambda: client.publish(channel, b"[]"), what="Flower's subscription")

    def log(self) -> str:
        """Return the log."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """Stop Flower with SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(DEADLINE_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill Flower. A normal stop takes up to five seconds if the broker is not available."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start Flower again, with an empty memory."""
        self.stop()
        free_port(self.port)  # keep it until Flower listens again
        self.start()

    def get(self, path: str, **options: Any) -> requests.Response:
        """Get a page with the operator's login."""
        return requests.get(
            self.url + path, **{"auth": LOGIN, "timeout": DEADLINE_SECONDS, **options}
        )

    def post(self, path: str, fields: Any, **options: Any) -> requests.Response:
        """Send a form with the CSRF token of its page."""
        with requests.Session() as session:
            session.auth = options.pop("auth", LOGIN)
            page = session.get(f"{self.url}/failures", timeout=DEADLINE_SECONDS)
            found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
            token = found.group(1) if found else session.cookies.get("_xsrf", "")
            fields = [*(fields.items() if isinstance(fields, dict) else fields), ("_xsrf", token)]
            return session.post(
                self.url + path, data=fields, **{"timeout": DEADLINE_SECONDS, **options}
            )


_COMMANDS = {
    "harasocial-dispatch": ["harasocial-dispatch"],
    "celery": ["celery", "-A", "harasocial_dispatch.worker"],
}


@dataclass
class FlowerHarness:
    """A ledger with jobs, and a Flower that shows them."""

    settings: Settings
    ledger: Ledger
    flower: Flower

    def fail(self, **options: Any) -> str:
        """Enqueue a job and fail it. See `fail_job`."""
        return fail_job(self.ledger, **options)

    def let_a_millisecond_pass(self) -> None:
        """Wait, so that jobs that fail later are listed before those that failed earlier."""
        before = self.ledger.reader.now_ms()
        eventually(lambda: self.ledger.reader.now_ms() > before)

    def state(self, job_id: str) -> State:
        """Return the state of a job."""
        return present(self.ledger.reader.get(job_id)).state


def new_page_id() -> str:
    """Return a unique page id."""
    return str(next(_page_ids))


def claim_job(ledger: Ledger, job_id: str) -> Claim:
    """Claim one job. Each test uses its own pages, so it claims no jobs of other tests."""
    claims: dict[str, Claim] = {}
    while job_id not in claims:
        found = ledger.claim(100).claims
        assert found, "the job cannot be claimed"
        claims.update({claim.job_id: claim for claim in found})
    return claims[job_id]


def fail_job(
    ledger: Ledger,
    *,
    page_id: str = "500725830264749",
    error_code: str = "551",
    error_message: str | None = "it was refused",
    state: State = State.FAILED,
    metadata: str | None = None,
    payload_id: str = "__hrf_f_1",
    recipient_id: str = "2560816460648749",
) -> str:
    """Enqueue a job and record one refused attempt, like a worker. `state` may be RETRYING."""
    new = parse_new_job(
        body(payload_id, page_id=page_id, recipient_id=recipient_id, metadata=metadata)
    )
    (job_id,) = ledger.enqueue([new]).job_ids
    claim = claim_job(ledger, job_id)
    result = make_result(
        claim,
        state,
        error_code,
        delay_seconds=3600,
        duration_ms=250,
        error_message=error_message,
        http_status=200,
    )
    assert ledger.record([result]) == [True]
    return job_id


def text_of(page: requests.Response) -> str:
    """Return the visible text of a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page.text)))


def job_ids(page: requests.Response) -> list[str]:
    """Return the ids of the jobs in a list, in order."""
    return re.findall(r'name="job_id" value="([^"]+)"', page.text)
