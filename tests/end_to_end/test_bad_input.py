"""Bad settings, rows and entries in Redis cause a clear error or a failed job, never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.producer import Producer, QueueUnavailable
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, body, environment, eventually, free_port, wait_until_ended
from support.processes import CELERY, run_program
from support.scrape import Scrape


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"TOKEN": None}, ["HARASOCIAL_TOKEN", "HARASOCIAL_TOKENS_FILE"]),
        ({"TOKENS_FILE": "/nowhere/tokens.json"}, ["HARASOCIAL_TOKENS_FILE"]),
        ({"MAX_ATTEMPTS": "many"}, ["HARASOCIAL_MAX_ATTEMPTS"]),
        ({"API_URL": "http://apis.harasocial.com/"}, ["HARASOCIAL_API_URL", "https://"]),
    ],
)
def test_a_wrong_setting_stops_the_worker_with_its_name(
    changes: dict[str, str | None], words: list[str], settings: Settings, tmp_path: Path
) -> None:
    """The output names the variable, the exit status is 2, and there is no traceback."""
    env = environment(settings, "http://127.0.0.1:1/", **changes)

    ended = run_program(*CELERY, "worker", env=env, cwd=tmp_path)

    assert ended.returncode == 2, ended.stderr
    assert all(word in ended.stderr for word in words)
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_pool_that_would_not_work_is_refused_with_the_reason(
    pool: str, settings: Settings, tmp_path: Path
) -> None:
    """The pump uses its own event loop and threads, which green threads would not run."""
    # Celery imports the library before our code runs, so a fake module is enough.
    for name in ("gevent", "eventlet"):
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text("def __getattr__(n): return lambda *a, **k: None\n")
    env = environment(settings, "http://127.0.0.1:1/") | {"PYTHONPATH": str(tmp_path)}
    code = (
        "import celery.concurrency as c, sys\n"
        "from harasocial_dispatch.worker import app\n"
        f"app.conf.worker_pool = '{pool}'\n"
        "from celery import signals\n"
        "signals.celeryd_init.send(sender='x', instance=None, conf=app.conf, options={})\n"
    )

    ended = run_program(sys.executable, "-c", code, env=env, cwd=tmp_path)

    assert ended.returncode == 2, ended.stderr
    assert pool in ended.stderr
    assert "prefork" in ended.stderr


def test_enqueue_with_redis_away_or_hanging_fails_within_two_seconds() -> None:
    """A web request never waits: QueueUnavailable is raised in time, with advice."""
    away = Producer(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    began = time.monotonic()
    with pytest.raises(QueueUnavailable, match="nothing was enqueued"):
        away.enqueue(body())
    assert time.monotonic() - began < 2

    with EmbeddedValkey() as hanging:
        producer = Producer(Settings(redis_url=hanging.url))
        producer.enqueue(body())
        hanging.pause()
        began = time.monotonic()
        with pytest.raises(QueueUnavailable):
            producer.enqueue(body())
        with pytest.raises(QueueUnavailable):
            Producer(Settings(redis_url=hanging.url)).enqueue(body())
        assert time.monotonic() - began < 4
        hanging.resume()


def test_bad_jobs_put_into_redis_by_hand_are_recorded_and_stop_nothing(
    producer: Producer, settings: Settings, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 10: each becomes a failed `invalid_job`; valid jobs of the same lane are sent."""
    # given a lane with entries of every wrong kind between good ones
    client: Any = redis.Redis.from_url(settings.redis_url, decode_responses=True)
    prefix = f"{{{settings.namespace}}}:"
    page_id = "500725830264749"
    good = [producer.enqueue(body(metadata="before"))]
    lane = f"{prefix}ready:{page_id}"
    valid = {"state": "queued", "page_id": page_id, "expires_at": "99999999999999"}
    client.hset(f"{prefix}job:no-recipient", mapping=valid | {"payload_id": "x"})
    client.hset(
        f"{prefix}job:bad-recipient",
        mapping=valid | {"payload_id": "x", "recipient_id": "\x1b[31mred", "attempts": "a lot"},
    )
    client.hset(f"{prefix}job:no-state", mapping={"page_id": page_id})
    client.set(f"{prefix}job:a-string", "what?")
    client.hset(f"{prefix}job:other-page", mapping=valid | {"page_id": "42"})
    client.execute_command("HSET", f"{prefix}job:bytes", "state", "queued", b"\xff\xfe", b"\x80")
    bad = ["no-recipient", "bad-recipient", "no-state", "a-string", "other-page", "bytes", "gone"]
    client.rpush(lane, *bad)
    client.hset(f"{prefix}pauses", "77", "not JSON")
    client.set(f"{prefix}ready:666", "not a list")
    client.zadd(f"{prefix}lanes", {"666": 0})
    good.append(producer.enqueue(body(metadata="after")))

    # when a worker claims them
    worker = start_worker()

    # then the good entries are sent, and the bad ones are recorded as failed
    records = wait_until_ended(producer, good)
    assert {record.state for record in records} == {State.SENT}
    eventually(lambda: producer.count_errors() == {"invalid_job": len(bad)})
    assert {record.job_id for record in producer.find_jobs(error_code="invalid_job")} == set(bad)
    # … nothing was POSTed for them, and the worker continues
    assert sandbox.totals().posts == 2
    assert "Traceback" not in worker.log()
    wait_until_ended(producer, [producer.enqueue(body(metadata="later"))])


def test_keys_of_a_later_version_stop_a_worker_before_it_starts(
    settings: Settings, producer: Producer, tmp_path: Path
) -> None:
    """The error has both versions and what to do. A web app is refused in the same way."""
    client: Any = redis.Redis.from_url(settings.redis_url)
    client.set(f"{{{settings.namespace}}}:version", "99")
    env = environment(settings, "http://127.0.0.1:1/")
    words = ["layout 99", "layout 2", "HARASOCIAL_NAMESPACE"]

    started = run_program(*CELERY, "worker", env=env, cwd=tmp_path)
    checked = run_program("harasocial-dispatch", "check", env=env, cwd=tmp_path)

    assert (started.returncode, checked.returncode) == (2, 2)
    assert all(word in started.stderr and word in checked.stdout for word in words)
    assert "Traceback" not in started.stderr
    with pytest.raises(QueueUnavailable, match=r"layout 99.*nothing was enqueued"):
        producer.enqueue(body())


def test_keys_replaced_under_a_running_worker_are_repaired_within_seconds(
    settings: Settings, producer: Producer, start_worker: StartWorker
) -> None:
    """Each key in turn gets the wrong type; jobs that wait then or are enqueued later are sent."""
    scrape = Scrape(free_port())
    worker = start_worker(METRICS_PORT=scrape.port)
    client: Any = redis.Redis.from_url(settings.redis_url, decode_responses=True)
    prefix = f"{{{settings.namespace}}}:"
    page_id = "500725830264749"
    strings = ["bell", "clock", "version"]
    others = ["lanes", "due", "counts", "pauses", "sent", "cancelled", "failed"]
    others += ["failed_codes", "failed_pages", "repairs", "rebuild"]
    others += [f"ready:{page_id}", f"urgent:{page_id}"]
    for name in strings + others:
        soon = datetime.now(timezone.utc) + timedelta(seconds=1)
        waiting = producer.enqueue(body(), send_at=soon)
        wrong = "list" if name in strings else "string"
        replacing = client.pipeline(transaction=True)
        replacing.delete(prefix + name)
        if wrong == "list":
            replacing.rpush(prefix + name, "x").execute()
        else:
            replacing.set(prefix + name, "x").execute()
        ids = [waiting, producer.enqueue(body()), producer.enqueue(body(), urgent=True)]
        records = wait_until_ended(producer, ids, seconds=15)
        assert {record.state for record in records} == {State.SENT}, name
        eventually(lambda: client.type(prefix + name) != wrong, what=name)  # noqa: B023

    eventually(lambda: scrape.value("repairs_total") >= len(others), what="the count")
    eventually(lambda: worker.log().count("action=repaired") >= len(others), what="the lines")
    assert "Traceback" not in worker.log()
    assert producer.count_errors() == {}


def test_a_pickle_on_the_broker_is_refused(
    settings: Settings, producer: Producer, start_worker: StartWorker, tmp_path: Path
) -> None:
    """A client that can write to the broker must not be able to run code in the worker."""
    worker = start_worker()
    proof = tmp_path / "the-pickle-ran"
    code = f"""
import os, kombu
class Evil:
    def __reduce__(self):
        return (os.system, ("touch {proof}",))
kombu.enable_insecure_serializers(["pickle"])
with kombu.Connection({settings.redis_url!r}) as connection:
    kombu.Producer(connection).publish(
        ([Evil()], {{}}, {{}}), serializer="pickle", routing_key="{settings.namespace}.dispatch",
        exchange="{settings.namespace}.dispatch",
        headers={{"task": "harasocial.dispatch", "id": "evil", "lang": "py"}},
        declare=[kombu.Queue("{settings.namespace}.dispatch",
                 kombu.Exchange("{settings.namespace}.dispatch"), "{settings.namespace}.dispatch")])
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))

    eventually(lambda: "was dropped: its content is not JSON" in worker.log(), what="the refusal")

    assert not proof.exists()
    wait_until_ended(producer, [producer.enqueue(body())])
