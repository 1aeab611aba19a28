"""What the tests of Flower share: a real Flower, a ledger behind it, and jobs that failed."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import requests
from harasocial_dispatch.ledger import Claim, Ledger
from harasocial_dispatch.schemas import (
    Settings,
    State,
    parse_new_job,
)

from .harness import body, eventually, free_port
from .results import make_result

USER, PASSWORD = "operator", "vM3kq-Tz81-pLx-9dWe"
LOGIN = (USER, PASSWORD)

#: What the fixture `start_flower` is: options of Flower, then settings by their names.
StartFlower = Callable[..., "Flower"]

_page_ids = itertools.count(70_000)


class Flower:
    """Flower in a process of its own, on a port that it keeps over a restart.

    Args:
        command: `harasocial-dispatch` or `celery`, as people start it.
    """

    def __init__(
        self, env: dict[str, str], folder: Path, *options: str, command: str = "harasocial-dispatch"
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log_file = folder / f"flower-{self.port}.log"
        self._env, self._folder = env, folder
        self._arguments = [*_COMMANDS[command], "flower", f"--port={self.port}", *options]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> Flower:
        """Start it, and wait until it answers on its port."""
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._arguments,
                env=self._env,
                cwd=self._folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        if wait:
            eventually(self._answers, what=f"Flower's answer; its log: {self._log_file}")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            # With a prefix it has nothing at this address, and answers all the same.
            requests.get(f"{self.url}/healthcheck", timeout=5)
        except requests.ConnectionError:
            return False
        return True

    def log(self) -> str:
        """Return all that it printed."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """End it with SIGTERM."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """End it at once: an orderly end takes up to five seconds where its broker is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Start it anew, with nothing in its memory."""
        self.stop()
        self.start()

    def get(self, path: str, **options: Any) -> requests.Response:
        """Ask for a page as the operator does."""
        return requests.get(self.url + path, **{"auth": LOGIN, "timeout": 30, **options})

    def post(self, path: str, fields: Any, **options: Any) -> requests.Response:
        """Send a form as a page of Flower does, with the token that the page carries."""
        with requests.Session() as session:
            session.auth = options.pop("auth", LOGIN)
            page = session.get(f"{self.url}/failures", timeout=30)
            found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
            token = found.group(1) if found else session.cookies.get("_xsrf", "")
            fields = [*(fields.items() if isinstance(fields, dict) else fields), ("_xsrf", token)]
            return session.post(self.url + path, data=fields, **{"timeout": 30, **options})


_COMMANDS = {
    "harasocial-dispatch": [
        *(sys.executable, "-c", "from harasocial_dispatch.cli import main; main()")
    ],
    "celery": [sys.executable, "-m", "celery", "-A", "harasocial_dispatch.worker"],
}


@dataclass
class FlowerHarness:
    """What an operator has: a ledger with jobs in it, and Flower in front of it."""

    settings: Settings
    ledger: Ledger
    flower: Flower

    def fail(self, **options: Any) -> str:
        """Have a job fail; see `fail_job`."""
        return fail_job(self.ledger, **options)

    def let_a_millisecond_pass(self) -> None:
        """See to it that what fails from now on is listed before what has failed."""
        before = self.ledger.reader.now_ms()
        eventually(lambda: self.ledger.reader.now_ms() > before)

    def state(self, job_id: str) -> State:
        """Return where a job stands."""
        record = self.ledger.reader.get(job_id)
        assert record is not None
        return record.state


def new_page_id() -> str:
    """Return a page's id that no other test has."""
    return str(next(_page_ids))


def claim_job(ledger: Ledger, job_id: str) -> Claim:
    """Claim one job; others that could be claimed too are left alone by the tests' own pages."""
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
    """Enqueue a job and record one refused attempt, as a worker does; `state` may be RETRYING."""
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
    """Return what is to be read on a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page.text)))


def job_ids(page: requests.Response) -> list[str]:
    """Return the jobs of a list, in order."""
    return re.findall(r'name="job_id" value="([^"]+)"', page.text)
