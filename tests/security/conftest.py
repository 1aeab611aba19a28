"""Run a system at debug level through all outcomes of a job, and collect its output."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.cli import commands
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, RawRequest, Sandbox
from harasocial_dispatch.sandbox.behaviors import HOSTILE_TEXT
from harasocial_dispatch.schemas import JobRecord, Settings, sanitize
from support.harness import (
    DEADLINE_SECONDS,
    WorkerProcess,
    body,
    environment,
    eventually,
    wait_until_ended,
)
from support.inspection import CeleryEvents, RedisTraffic, everything_in_redis, process_arguments
from support.watched_flower import WatchedFlower

#: A page with its own token, and a page whose token the API rejects.
OWN_PAGE, REFUSED_PAGE = "777000777", "777000888"

#: A hostile text that is valid in a payload id, an idempotency key, or metadata.
PRINTABLE = "".join(c for c in HOSTILE_TEXT if c.isprintable())
CONTROLLED = HOSTILE_TEXT.replace("\ud800", "")

#: Jobs that are enqueued together: the payload id of each, by its name.
PAYLOADS = {
    "sent": "sandbox:ok",
    "permanent": "sandbox:code:10/2018278",
    "transient": "sandbox:status:503",
    "throttled": "sandbox:throttle_first:1:0.1",
    "refused": "sandbox:code:190:401",
    "lost": "sandbox:drop",
    "late": "sandbox:hang",
    "garbage": "sandbox:garbage",
    "redirected": "sandbox:redirect",
    "echoed": "sandbox:echo_token",
    "echoed with 400": "sandbox:echo_token:400",
    "echoed malformed": "sandbox:echo_malformed",
    "hostile": "sandbox:hostile",
    "hostile job": f"sandbox:ok#{PRINTABLE}",
    "crashed": "crash",
}

#: The expected end of each job: state and error_code.
ENDS = {
    "sent": ("sent", None),
    "permanent": ("failed", "10/2018278"),
    "transient": ("failed", "http_503"),
    "throttled": ("sent", None),
    "refused": ("failed", "190"),
    "lost": ("failed", "connection_lost"),
    "late": ("failed", "timeout"),
    "garbage": ("failed", "invalid_response"),
    "redirected": ("failed", "redirected"),
    "echoed": ("failed", "refused [token]"),
    "echoed with 400": ("failed", "refused [token]"),
    "echoed malformed": ("failed", "connection_lost"),
    "hostile": ("failed", sanitize(HOSTILE_TEXT, 64).strip()),
    "hostile job": ("sent", None),
    "crashed": ("failed", "internal_error"),
    "own token": ("failed", "refused [token]"),
    "another token": ("failed", "http_401"),
    "expired": ("failed", "expired"),
    "cancelled": ("cancelled", None),
    "by another client": ("failed", "invalid_job"),
    "away": ("failed", "connection_failed"),
    "died": ("failed", "unknown_outcome"),
    "last": ("failed", "551"),
}

#: Injected into the worker: a call that raises an error that quotes the request, and
#: a call that kills its process.
CRASHING = """
import os, signal
from harasocial_dispatch.worker.http import Endpoint
request = Endpoint.request
def crash(self, body, token):
    if body["message"]["payload_id"] == "crash":
        raise RuntimeError(f"cannot send {body} with {token}")
    if body["message"]["payload_id"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return request(self, body, token)
Endpoint.request = crash
"""


@dataclass(frozen=True)
class Secrets:
    """Secrets that are random in each run, so that each occurrence is a leak."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    page_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    #: Contains delimiters of a URL, which must be encoded.
    redis_password: str = field(default_factory=lambda: f"p@s:s/{secrets.token_hex(16)}")
    flower_password: str = field(default_factory=lambda: secrets.token_hex(16))
    flower_cookie_secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))


@dataclass
class Traces:
    """The results of the run.

    Attributes:
        texts: the collected texts, by their source.
        records: each job's record, by its name in `ENDS`.
        ends: the expected state and error_code of each job.
        received: the requests that the API received.
    """

    secrets: Secrets
    texts: dict[str, str] = field(default_factory=dict)
    records: dict[str, JobRecord] = field(default_factory=dict)
    ends: Mapping[str, tuple[str, str | None]] = field(default_factory=lambda: ENDS)
    received: list[RawRequest] = field(default_factory=list)


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traces]:
    """Run the system once per session; see `run`."""
    folder = tmp_path_factory.mktemp("security")
    with ExitStack() as stack:
        made = Traces(Secrets())
        run(made, folder, stack)
        yield made


def run(traces: Traces, folder: Path, stack: ExitStack) -> None:
    """Send jobs through a real worker with Flower, and collect all output."""
    texts, hidden = traces.texts, traces.secrets
    valkey = stack.enter_context(EmbeddedValkey(requirepass=hidden.redis_password))
    traffic = stack.enter_context(RedisTraffic(valkey.url))
    settings = Settings(
        redis_url=valkey.url, namespace=f"security-{uuid.uuid4().hex[:8]}", page_rate=0.0
    )
    events = stack.enter_context(CeleryEvents(settings))
    sandbox = stack.enter_context(
        Sandbox(
            tokens={"*": hidden.token, OWN_PAGE: hidden.page_token, REFUSED_PAGE: "quite another"}
        )
    )
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
        CALL_DEADLINE_SECONDS=3,
        LEASE_SECONDS=4,
    )
    env["FLOWER_COOKIE_SECRET"] = hidden.flower_cookie_secret
    producer = Producer(settings)
    stack.callback(producer.close)

    # Without a worker, the jobs stay in their lanes, and a doorbell stays in the broker.
    ids = {
        name: enqueue(producer, payload_id, page_id=str(9000 + number))
        for number, (name, payload_id) in enumerate(PAYLOADS.items())
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
    ids["by another client"] = put_by_another_client(settings)
    texts["Redis, before"] = everything_in_redis(valkey.url)

    # Started first, so that it receives the events of every job.
    flower = WatchedFlower(env, folder, ("operator", hidden.flower_password))
    stack.callback(flower.stop)
    flower.start()
    worker = WorkerProcess(
        *(env, folder, "-l", "DEBUG", "-E", "--concurrency", "2", "--include", "crashing"),
        new_interpreter=True,
    )
    stack.callback(worker.kill)
    worker.start()
    names = list(ids)
    traces.records.update(zip(names, wait_until_ended(producer, ids.values()), strict=True))
    # Run each alone: the first stops the endpoint, the second kills the process.
    sandbox.down()
    end(traces, producer, "away", "sandbox:ok")
    sandbox.up()
    end(traces, producer, "died", "die", delivery="at_most_once")
    # One more job, by a new process. When Flower has its events, it has all earlier ones.
    end(traces, producer, "last", "sandbox:code:551")
    last = traces.records["last"].job_id
    flower.wait_for(last)

    texts["process arguments"] = process_arguments()
    texts["remote control"] = remote_control(settings)
    texts["Flower's pages"] = flower.pages([record.job_id for record in traces.records.values()])
    texts["Flower's data"] = flower.data()
    texts.update(command_line(env, traces.records))
    traces.received = sandbox.requests()
    eventually(lambda: last in events.text(), what="the last event")
    worker.terminate()
    texts["worker's output"] = worker.log()
    flower.stop()
    texts["Flower's output"] = flower.log()
    texts["Redis, after"] = everything_in_redis(valkey.url)
    texts["Redis' traffic"] = traffic.text()
    texts["Celery's events"] = events.text()


def enqueue(producer: Producer, payload_id: str, page_id: str, **options: Any) -> str:
    return producer.enqueue(
        body(payload_id, page_id=page_id, metadata=CONTROLLED),
        idempotency_key=f"{page_id} {PRINTABLE}",
        **options,
    )


def end(traces: Traces, producer: Producer, name: str, payload_id: str, **options: Any) -> None:
    """Enqueue a further job and wait until it has ended."""
    page_id = str(9500 + len(traces.records))
    (record,) = wait_until_ended(producer, [enqueue(producer, payload_id, page_id, **options)])
    traces.records[name] = record


def put_by_another_client(settings: Settings) -> str:
    """Add an invalid job with hostile texts to a lane; return its id."""
    client: Any = redis.Redis.from_url(settings.redis_url)
    prefix = f"{{{settings.namespace}}}:"
    job_id, page_id = "by-hand", "9999"
    fields = {
        "state": "queued",
        "page_id": page_id,
        "expires_at": "99999999999999",
        **dict.fromkeys(["recipient_id", "payload_id", "metadata"], CONTROLLED),
    }
    client.hset(f"{prefix}job:{job_id}", mapping=fields)
    client.rpush(f"{prefix}ready:{page_id}", job_id)
    client.zadd(f"{prefix}lanes", {page_id: 0})
    return job_id


def remote_control(settings: Settings) -> str:
    """Return a worker's replies to Celery's inspection commands."""
    inspect = SeparateCelery("remote", settings).control.inspect(timeout=DEADLINE_SECONDS, limit=1)
    return repr([inspect.conf(with_defaults=True), inspect.report(), inspect.stats()])


def command_line(env: dict[str, str], records: dict[str, JobRecord]) -> dict[str, str]:
    """Return the output of each command, including errors, by its name."""
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
