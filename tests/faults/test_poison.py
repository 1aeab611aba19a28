"""A job that kills its process each time it is sent must not do so forever."""

from __future__ import annotations

from pathlib import Path

from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import WorkerProcess, body, environment, eventually, wait_until_ended

#: Python loads this when the worker starts. A call of the poison job kills its process.
POISON = """
import os, signal
from harasocial_dispatch.worker.http import Endpoint
healthy = Endpoint.request
def request(self, body, token):
    if body["metadata"] == "poison":
        os.kill(os.getpid(), signal.SIGKILL)
    return healthy(self, body, token)
Endpoint.request = request
"""


def test_a_poison_job_fails_after_a_limited_number_of_claims(
    producer: Producer, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Promises 1 and 11: it fails with unknown_outcome after its attempts. Other jobs are sent.

    This includes jobs that were in flight with it: possibly poisonous jobs are sent one at a time.
    """
    (tmp_path / "sitecustomize.py").write_text(POISON)
    env = environment(
        settings,
        sandbox.url,
        MAX_ATTEMPTS=3,
        LEASE_SECONDS=3,
        CALL_DEADLINE_SECONDS=2.8,
        RETRY_BASE_SECONDS=0.1,
    )
    worker = WorkerProcess(env | {"PYTHONPATH": str(tmp_path)}, tmp_path, "--concurrency", "2")
    worker.start()
    try:
        poison = producer.enqueue(body(metadata="poison", page_id="666"))
        others = [
            producer.enqueue(body(metadata=f"job {i}", page_id=str(1000 + i))) for i in range(20)
        ]

        (failed,) = wait_until_ended(producer, [poison])
        assert (failed.state, failed.error_code) == (State.FAILED, "unknown_outcome")
        assert [attempt.error_code for attempt in failed.attempts] == ["unknown_outcome"] * 3
        records = wait_until_ended(producer, others)
        assert {record.state for record in records} == {State.SENT}
        eventually(lambda: worker.log().count("SIGKILL") >= 3, what="three killed processes")
    finally:
        worker.kill()
