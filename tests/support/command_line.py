"""The types of the fixtures for tests of the command: run it, and set the outcomes of jobs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from click.testing import Result
from harasocial_dispatch.ledger import Campaign, Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.schemas import State

from .harness import body, present
from .results import make_result

#: The type of the fixture `run`: its arguments are those of the command line.
Run = Callable[..., Result]


@dataclass
class Jobs:
    """Enqueues jobs and records their outcomes as a worker does."""

    ledger: Ledger
    producer: Producer

    def enqueue(self, *, page_id: str = "500725830264749", **fields: Any) -> str:
        metadata = fields.pop("metadata", None)
        return self.producer.enqueue(body(page_id=page_id, metadata=metadata), **fields)

    def end(self, state: State, error_code: str | None = None, message: str | None = None) -> None:
        """Claim all ready jobs, and record the same outcome for each one."""
        while claims := self.ledger.claim(100).claims:
            made = [
                make_result(
                    claim,
                    state,
                    error_code,
                    delay_seconds=60,
                    error_message=message,
                    http_status=200 if state is State.SENT else 400,
                )
                for claim in claims
            ]
            self.ledger.record(made)

    def failed(
        self, error_code: str = "10/2018278", message: str = "refused", **fields: Any
    ) -> str:
        """Return the id of a new job that failed."""
        job_id = self.enqueue(**fields)
        self.end(State.FAILED, error_code, message)
        # Failures are sorted by millisecond, so the next failure needs a different one.
        failed_ms = self.ledger.reader.now_ms()
        while self.ledger.reader.now_ms() == failed_ms:
            pass
        return job_id

    def sent(self, **fields: Any) -> str:
        """Return the id of a new job that was sent."""
        job_id = self.enqueue(**fields)
        self.end(State.SENT)
        return job_id

    def state(self, job_id: str) -> State:
        return self.producer.get_job(job_id).state

    def campaign(self, name: str) -> Campaign:
        return present(self.ledger.reader.campaign(name), f"the campaign {name!r}")


def read_line(process: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints."""
    return present(process.stdout, "standard output").readline()
