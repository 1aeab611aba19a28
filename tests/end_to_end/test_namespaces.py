"""Applications that share a database of Redis do not affect each other through Celery."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings
from support.flower_harness import LOGIN, Flower
from support.harness import (
    DEADLINE_SECONDS,
    StartWorker,
    body,
    environment,
    eventually,
    unique_settings,
    wait_until_ended,
)
from support.processes import CELERY, run_program


@pytest.fixture
def other(settings: Settings) -> Settings:
    """Another namespace in the same database."""
    return unique_settings(settings.redis_url)


def celery(settings: Settings, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Celery's own command line with these settings."""
    env = environment(settings, "http://127.0.0.1:9")
    return run_program(*CELERY, *arguments, env=env, cwd=folder)


def test_control_commands_stay_within_a_namespace(
    settings: Settings, other: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Only its own workers react, not those of another namespace or application."""
    ours = start_worker()
    theirs = start_worker(NAMESPACE=other.namespace)

    # A plain Celery application has Celery's own names.
    host_app = Celery(broker=settings.redis_url, set_as_current=False)
    assert not host_app.control.ping(timeout=2)
    host_app.control.shutdown()

    def pongs() -> int:
        ping = ("inspect", "ping", "--json", "--timeout", "3")
        return celery(settings, tmp_path, *ping).stdout.count("pong")

    assert eventually(pongs, what="a reply in time") == 1
    # The worker ends without a reply, which Celery reports as an error.
    celery(other, tmp_path, "control", "shutdown")

    assert theirs.wait() == 0
    assert ours.process.poll() is None
    # … and it still sends
    producer = Producer(settings)
    wait_until_ended(producer, [producer.enqueue(body())])
    assert "shutdown" not in ours.log()


def test_flower_shows_the_events_of_its_namespace_only(
    settings: Settings, other: Settings, start_worker: StartWorker, tmp_path: Path
) -> None:
    """.env.example documents this."""
    start_worker()
    start_worker(NAMESPACE=other.namespace)
    flower = Flower(
        environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=":".join(LOGIN)), tmp_path
    )
    try:
        flower.start()
        flower.wait_for_subscription()
        failed = {}
        # The other namespace's failure comes first.
        for each in (other, settings):
            producer = Producer(each)
            failed[each.namespace] = producer.enqueue(body("sandbox:code:551"))
            wait_until_ended(producer, [failed[each.namespace]])
        eventually(
            lambda: flower.get(f"/api/task/info/{failed[settings.namespace]}").ok,
            what="the event of its own namespace",
        )
        assert not flower.get(f"/api/task/info/{failed[other.namespace]}").ok
        workers = eventually(lambda: flower.get("/api/workers?refresh=1").json(), what="a worker")
        assert len(workers) == 1
    finally:
        flower.stop()


def test_all_that_is_in_redis_is_named_by_the_namespace(start_worker: StartWorker) -> None:
    """The exception is kombu's list of exchanges to delete; its entries contain the namespace."""
    with EmbeddedValkey() as valkey:
        settings = Settings(redis_url=valkey.url, namespace="shop")
        worker = start_worker(REDIS_URL=valkey.url, NAMESPACE="shop")
        producer = Producer(settings)
        wait_until_ended(producer, [producer.enqueue(body())])
        assert (
            SeparateCelery("test", settings)
            .control.inspect(timeout=DEADLINE_SECONDS, limit=1)
            .ping()
        )

        client: Any = redis.Redis.from_url(valkey.url, decode_responses=True)
        keys = set(client.scan_iter("*"))
        exchanges = set(client.zrange("_kombu.binding_deadlines", 0, -1))

        assert {name for name in keys | exchanges if "shop" not in name} == {
            "_kombu.binding_deadlines"
        }
        assert [
            name
            for name in ("/0.celery.pidbox", "/0.celeryev/worker", "/0.shop.control.pidbox")
            if client.publish(name, "")
        ] == ["/0.shop.control.pidbox"]
        assert worker.terminate() == 0
