"""`demo`: run the complete system with an embedded Valkey and a stand-in for the API."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...producer import Producer
from ...schemas import DispatchError, JobRecord, Settings, State
from ...schemas.error_codes import explain
from ..output.printing import NAME, Column, is_terminal, print_table, shown, state_cell

if TYPE_CHECKING:
    from ...sandbox import Sandbox

#: Timeout until every job has ended; a normal run takes about ten seconds.
_DEADLINE_SECONDS = 100.0
#: Timeout until the worker is ready, and later until it has stopped.
_WORKER_SECONDS = 60.0

#: The page of the sample whose token the stand-in refuses.
_PAGE_WITH_WITHDRAWN_TOKEN = "998877665544332"  # noqa: S105 - a page id

#: Shorter times than in production, so that the demo takes only seconds.
_TIMES = {
    "HARASOCIAL_MAX_ATTEMPTS": "3",
    "HARASOCIAL_RETRY_BASE_SECONDS": "0.5",
    "HARASOCIAL_RETRY_MAX_SECONDS": "1",
    "HARASOCIAL_CALL_DEADLINE_SECONDS": "2",
    "HARASOCIAL_LEASE_SECONDS": "10",
}


class DemoFailed(DispatchError):
    """The demo did not finish."""


@click.command()
def demo() -> None:
    """Run a demo of the complete system with 309 jobs.

    Starts an embedded Valkey, a stand-in for the API and a real worker. Nothing is sent to
    Harasocial. At the end, all processes are stopped and all files are deleted.
    """
    try:
        from ...sandbox import DEFAULT_TOKEN, EmbeddedValkey, Sandbox  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise click.UsageError(str(error)) from None
    tokens = {"*": DEFAULT_TOKEN, _PAGE_WITH_WITHDRAWN_TOKEN: "another token since yesterday"}

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harasocial-demo-")))
        try:
            valkey = stack.enter_context(EmbeddedValkey())
        except ModuleNotFoundError as error:
            raise click.UsageError(str(error)) from None
        sandbox = stack.enter_context(Sandbox(tokens=tokens))
        click.echo(
            f"An embedded Valkey runs on {valkey.url}, a stand-in for the API on {sandbox.root_url}"
        )
        environment = {
            **{name: v for name, v in os.environ.items() if not name.startswith("HARASOCIAL_")},
            **_TIMES,
            "HARASOCIAL_REDIS_URL": valkey.url,
            "HARASOCIAL_API_URL": sandbox.url,
            "HARASOCIAL_TOKEN": DEFAULT_TOKEN,
        }
        stack.enter_context(_worker(environment, folder))
        producer = Producer(Settings(redis_url=valkey.url))
        stack.callback(producer.close)
        began = time.monotonic()
        job_ids = producer.enqueue_many(_sample()).accepted
        click.echo(f"{len(job_ids)} jobs are enqueued. The worker sends them.\n")
        _watch(producer, len(job_ids))
        _report(producer, sandbox, time.monotonic() - began)


def _sample() -> list[dict[str, Any]]:
    text = (files(__package__) / "demo_jobs.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@contextmanager
def _worker(environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a worker in a process of its own until the block ends."""
    log = folder / "worker.log"
    command = [sys.executable, "-m", "celery", "-A", "harasocial_dispatch.worker", "worker"]
    options = ["--without-gossip", "--without-mingle", "--concurrency", "2", "-l", "INFO"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a fixed command
            command + options,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C stops the demo, and the demo stops the worker.
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _WORKER_SECONDS
        while b" ready." not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the worker did not start:\n{_tail(log)}")
            time.sleep(0.05)
        click.echo(f"A Celery worker runs, process {process.pid}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_WORKER_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _watch(producer: Producer, total: int) -> None:
    """Show progress until every job has ended."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    with _progress(total) as show:
        while True:
            states = producer.count_states()
            ended = states[State.SENT] + states[State.FAILED]
            show(ended, states)
            if ended >= total:
                return
            if time.monotonic() > deadline:
                raise DemoFailed(f"{total - ended} jobs had not ended after {_DEADLINE_SECONDS} s")
            time.sleep(0.1)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function that shows progress: a bar on a terminal, one line per second elsewhere."""
    if is_terminal():
        try:
            from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - optional
        except ImportError:
            pass
        else:
            with Progress(BarColumn(), TextColumn("{task.description}")) as bar:
                task = bar.add_task("", total=total)
                yield lambda ended, states: bar.update(
                    task, completed=ended, description=_summary(states)
                )
            return
    lines = _Lines()
    yield lambda ended, states: lines.show(_summary(states), last=ended >= total)


class _Lines:
    """Prints at most one line per second."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, text: str, *, last: bool) -> None:
        if last or time.monotonic() >= self._next:
            click.echo(text)
            self._next = time.monotonic() + 1


def _summary(states: dict[State, int]) -> str:
    shown_states = (State.SENT, State.FAILED, State.SENDING, State.RETRYING, State.QUEUED)
    return "  ".join(f"{state} {states[state]:>3}" for state in shown_states)


def _report(producer: Producer, sandbox: Sandbox, seconds: float) -> None:
    records = producer.find_jobs(limit=10_000)
    counts = Counter((record.state, record.error_code or "") for record in records)
    click.echo()
    print_table(
        [
            Column("state"),
            Column("error_code"),
            Column("jobs", right=True),
            Column("meaning", fit="wrap"),
        ],
        [
            [state_cell(state), code, str(count), _meaning(code)]
            for (state, code), count in sorted(
                counts.items(), key=lambda item: (item[0][0] is State.FAILED, -item[1], item[0][1])
            )
        ],
    )
    totals = sandbox.totals()
    sent = counts[State.SENT, ""]
    twice = sum(job.accepted > 1 for job in sandbox.jobs())
    click.echo(
        f"\n{len(records)} jobs ended in {seconds:.1f} s: {totals.posts} POSTs, {sent} messages "
        f"accepted, {twice} of them twice.\n\nThree that failed, and what to do:"
    )
    for record in _three_that_failed(records):
        _print_failure(record)
    program = _program()
    click.echo(
        "\nNext, use your own account: set HARASOCIAL_TOKEN and HARASOCIAL_REDIS_URL, "
        f"then run: {program} check\n"
        f"Without an account: {program} sandbox --redis"
    )


def _program() -> str:
    """Return the command of this program: its path if a shell would not find it by its name."""
    path = sys.argv[0]
    return path if Path(path).name == NAME and shutil.which(NAME) is None else NAME


def _three_that_failed(records: list[JobRecord]) -> list[JobRecord]:
    wanted = ("10/2018278", "http_401", "http_503")
    failed = {record.error_code: record for record in records if record.state is State.FAILED}
    return [failed[code] for code in wanted if code in failed]


def _print_failure(record: JobRecord) -> None:
    explanation = explain(record.error_code)
    click.echo(f"\n  {record.job_id}  page {record.page_id}  {shown(record.job.get('metadata'))}")
    click.echo(f"    {record.error_code}: {shown(record.error_message)}")
    click.echo(f"    {record.attempt_count} attempt{'s' if record.attempt_count != 1 else ''}")
    if explanation is not None:
        click.echo(f"    meaning: {explanation.meaning}")
        click.echo(f"    what to do: {explanation.remedy}")


def _meaning(code: str) -> str:
    explanation = explain(code) if code else None
    return explanation.meaning if explanation else ""
