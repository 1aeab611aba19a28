"""One system, run at debug level through every way a job can end; the tests look at its traces."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from click.testing import CliRunner
from harasocial_dispatch.cli import commands
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, RawRequest, Sandbox
from harasocial_dispatch.sandbox.replies import HOSTILE_TEXT
from harasocial_dispatch.schemas import JobRecord, Settings, harmless
from stage import WorkerProcess, body, environment, eventually, free_port, wait_until_ended
from traces import CeleryEvents, RedisTraffic, everything_in_redis, page, process_arguments

RECIPIENT = "2560816460648749"
#: A page that has a token of its own, and one that has another than the API wants.
OWN_PAGE, REFUSED_PAGE = "777000777", "777000888"

#: What is hostile and may yet be in a payload id, an idempotency key, or metadata.
PRINTABLE = "".join(c for c in HOSTILE_TEXT if c.isprintable())
CONTROLLED = HOSTILE_TEXT.replace("\ud800", "")

#: What is kept of an error code that is hostile.
HARMLESS_CODE = harmless(HOSTILE_TEXT, 64)

#: Job by job: how it is to end (state, error_code), and the payload id that makes it.
JOBS = {
    "sent": ("sent", None, "sandbox:ok"),
    "permanent": ("failed", "10/2018278", "sandbox:code:10/2018278"),
    "transient": ("failed", "http_503", "sandbox:status:503"),
    "throttled": ("sent", None, "sandbox:throttle_first:1:0.1"),
    "refused": ("failed", "190", "sandbox:code:190:401"),
    "lost": ("failed", "connection_lost", "sandbox:drop"),
    "late": ("failed", "timeout", "sandbox:hang"),
    "garbage": ("failed", "invalid_response", "sandbox:garbage"),
    "redirected": ("failed", "redirected", "sandbox:redirect"),
    "echoed": ("failed", "refused [token]", "sandbox:echo_token"),
    "echoed with 400": ("failed", "refused [token]", "sandbox:echo_token:400"),
    "hostile": ("failed", HARMLESS_CODE, "sandbox:hostile"),
    "hostile job": ("sent", None, f"sandbox:ok#{PRINTABLE}"),
    "crashed": ("failed", "internal_error", "crash"),
}

#: Put into the worker: a call that fails inside this program, its error quoting the request; and
#: one that kills its process.
CRASHING = """
import os, signal
from harasocial_dispatch.worker.http_call import Endpoint
post = Endpoint.post
def crash(self, body, token, call):
    if body["message"]["payload_id"] == "crash":
        raise RuntimeError(f"cannot send {body} with {token}")
    if body["message"]["payload_id"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return post(self, body, token, call)
Endpoint.post = crash
"""


@dataclass(frozen=True)
class Secrets:
    """Each different in each run, so that finding it means that it leaked."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    page_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    redis_password: str = field(default_factory=lambda: secrets.token_hex(16))
    flower_password: str = field(default_factory=lambda: secrets.token_hex(16))


@dataclass
class Traces:
    """What the run left behind.

    Attributes:
        texts: by where they come from.
        records: each job's record, by its name in `JOBS`.
        received: what the API received.
    """

    secrets: Secrets
    texts: dict[str, str] = field(default_factory=dict)
    records: dict[str, JobRecord] = field(default_factory=dict)
    received: list[RawRequest] = field(default_factory=list)


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Run it all once; see `run`."""
    folder = tmp_path_factory.mktemp("security")
    with ExitStack() as stack:
        made = Traces(Secrets())
        run(made, folder, stack)
        yield made


def run(traces: Traces, folder: Path, stack: ExitStack) -> None:
    """Send jobs through a real worker, with Flower watching, and gather what they leave."""
    texts, hidden = traces.texts, traces.secrets
    valkey = stack.enter_context(EmbeddedValkey(requirepass=hidden.redis_password))
    traffic = stack.enter_context(RedisTraffic(valkey.url))
    events = stack.enter_context(CeleryEvents(valkey.url))
    sandbox = stack.enter_context(
        Sandbox(
            tokens={"*": hidden.token, OWN_PAGE: hidden.page_token, REFUSED_PAGE: "quite another"}
        )
    )
    settings = Settings(redis_url=valkey.url, namespace=f"security-{uuid.uuid4().hex[:8]}")
    (folder / "tokens.json").write_text(json.dumps({OWN_PAGE: hidden.page_token}))
    (folder / "crashing.py").write_text(CRASHING)
    env = environment(
        settings,
        sandbox.url,
        TOKEN=hidden.token,
        TOKENS_FILE=folder / "tokens.json",
        FLOWER_BASIC_AUTH=f"operator:{hidden.flower_password}",
        MAX_ATTEMPTS=2,
        RETRY_BASE_SECONDS=0.05,
        CALL_DEADLINE_SECONDS=0.6,
        LEASE_SECONDS=1.5,
    )
    producer = Producer(settings)
    stack.callback(producer.close)

    # Before there is a worker: jobs in their lanes, a doorbell with the broker.
    ids = {
        name: enqueue(producer, payload_id, page_id=str(9000 + number))
        for number, (name, (_, _, payload_id)) in enumerate(JOBS.items())
    }
    ids["own token"] = enqueue(producer, "sandbox:echo_token", page_id=OWN_PAGE)
    ids["another token"] = enqueue(producer, "sandbox:ok", page_id=REFUSED_PAGE)
    ids["expired"] = producer.enqueue(
        body(), expires_at=datetime.now(timezone.utc) - timedelta(seconds=1)
    )
    ids["cancelled"] = producer.enqueue(
        body(), send_at=datetime.now(timezone.utc) + timedelta(hours=1)
    )
    producer.cancel(ids["cancelled"])
    ids["by other hands"] = put_by_other_hands(settings)
    texts["Redis, before"] = everything_in_redis(valkey.url)

    worker = WorkerProcess(
        env, folder, "-l", "DEBUG", "-E", "--concurrency", "2", "--include", "crashing"
    )
    stack.callback(worker.kill)
    worker.start()
    flower = Flower(env, folder, f"operator:{hidden.flower_password}")
    stack.callback(flower.kill)

    names = list(ids)
    traces.records.update(zip(names, wait_until_ended(producer, ids.values()), strict=True))
    # Both by themselves: the first leaves no endpoint, the second no process.
    sandbox.down()
    end(traces, producer, "away", "sandbox:ok")
    sandbox.up()
    end(traces, producer, "died", "die", delivery="at_most_once")
    # One more, by a new process; when Flower knows it, it knows all that came before.
    end(traces, producer, "last", "sandbox:code:551")
    last = traces.records["last"].job_id
    flower.start(last)

    texts["process arguments"] = process_arguments()
    texts["remote control"] = remote_control(valkey.url)
    texts.update(flower.pages([record.job_id for record in traces.records.values()]))
    texts.update(command_line(env, traces.records))
    traces.received = sandbox.requests()
    eventually(lambda: last in events.text(), what="the last event")
    worker.terminate()
    texts["worker's output"] = worker.log()
    texts["Flower's output"] = flower.stop()
    texts["Redis, after"] = everything_in_redis(valkey.url)
    texts["Redis' traffic"] = traffic.text()
    texts["Celery's events"] = events.text()


def enqueue(producer: Producer, payload_id: str, page_id: str, **options: Any) -> str:
    return producer.enqueue(
        body(payload_id, page_id=page_id, recipient_id=RECIPIENT, metadata=CONTROLLED),
        idempotency_key=f"{page_id} {PRINTABLE}",
        **options,
    )


def end(traces: Traces, producer: Producer, name: str, payload_id: str, **options: Any) -> None:
    """Enqueue a further job and wait until it has ended."""
    page_id = str(9500 + len(traces.records))
    (record,) = wait_until_ended(producer, [enqueue(producer, payload_id, page_id, **options)])
    traces.records[name] = record


def put_by_other_hands(settings: Settings) -> str:
    """Put a job into a lane that is no valid one, all its texts hostile; return its id."""
    client = redis.Redis.from_url(settings.redis_url)
    prefix = f"{{{settings.namespace}}}:"
    fields = {
        "state": "queued",
        "expires_at": "99999999999999",
        **dict.fromkeys(["page_id", "recipient_id", "payload_id", "metadata"], CONTROLLED),
    }
    client.hset(f"{prefix}job:{CONTROLLED}", mapping=fields)
    client.rpush(f"{prefix}ready:{CONTROLLED}", CONTROLLED)
    client.zadd(f"{prefix}lanes", {CONTROLLED: 0})
    return CONTROLLED


def remote_control(redis_url: str) -> str:
    """Return what a worker tells of itself to whoever asks over the broker."""
    inspect = Celery(broker=redis_url, set_as_current=False).control.inspect(timeout=1, limit=1)
    return repr([inspect.conf(with_defaults=True), inspect.report(), inspect.stats()])


def command_line(env: dict[str, str], records: dict[str, JobRecord]) -> dict[str, str]:
    """Return what each command prints, errors and all, by its name."""
    runner = CliRunner(env=env)

    def printed(*arguments: str) -> str:
        result = runner.invoke(commands, arguments)
        return f"{result.output}\n{result.stderr}\n{result.exception or ''}"

    ids = [record.job_id for record in records.values()]
    return {
        "show": "\n".join(printed("show", job_id) for job_id in ids),
        "show --json": "\n".join(printed("show", job_id, "--json") for job_id in ids),
        **{
            " ".join(arguments): printed(*arguments)
            for command in ("results", "errors", "stats", "check")
            for arguments in ((command,), (command, "--json"))
        },
    }


class Flower:
    """A real Flower, at debug level."""

    def __init__(self, env: dict[str, str], folder: Path, credentials: str) -> None:
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
                env=env,
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def start(self, job_id: str) -> None:
        """Wait until it answers, and knows of this job by its events."""
        eventually(lambda: self._answers(job_id), what=f"Flower's answer; its log: {self._log}")

    def _answers(self, job_id: str) -> bool:
        try:
            return page(f"{self._root}/api/task/info/{job_id}", self._credentials).startswith("200")
        except OSError:
            assert self._process.poll() is None, self._log.read_text()
            return False

    def pages(self, job_ids: list[str]) -> dict[str, str]:
        """Return all on which something of a job, a worker or a setting is shown, by kind."""
        ids = [quote(job_id, safe="") for job_id in job_ids]
        html = [
            "",
            "workers",
            "tasks",
            "broker",
            "failures",
            "failures/waiting",
            "failures/replays",
        ]
        html += [f"{kind}/{job_id}" for kind in ("failures", "task") for job_id in ids]
        html += [f"worker/{worker}" for worker in self._workers()]
        data = ["api/workers", "api/tasks"]
        data += ["metrics", "failures/export.csv", "failures/export.jsonl"]
        return {
            "Flower's pages": "\n".join(self._page(name) for name in html),
            "Flower's data": "\n".join(self._page(name) for name in data),
        }

    def _page(self, name: str) -> str:
        return f"{name}\n{page(f'{self._root}/{name}', self._credentials)}"

    def _workers(self) -> list[str]:
        return list(json.loads(self._page("api/workers").partition("\n\n")[2]))

    def stop(self) -> str:
        """End it; return what it printed."""
        self._process.terminate()
        self._process.wait(10)
        return self._log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.wait()
