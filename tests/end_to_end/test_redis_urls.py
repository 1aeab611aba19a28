"""The ledger and Celery accept every kind of URL, and no login appears anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.broker import Doorbell, queue_name
from harasocial_dispatch.broker.separate_celery import SeparateCelery
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, SettingsError, State
from support.flower_harness import LOGIN, Flower
from support.harness import (
    DEADLINE_SECONDS,
    StartWorker,
    body,
    environment,
    eventually,
    wait_until_ended,
)

USER, PASSWORD = "dispatcher-of-the-shop", "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    """A Valkey that only this test's user may use, also through a Unix socket."""
    # Not in pytest's own folder: the path of a socket must be short.
    with EmbeddedValkey(unixsocket="valkey.sock") as running:
        admin: Any = redis.Redis.from_url(running.url)
        admin.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        admin.execute_command("ACL", "SETUSER", "default", "off")
        yield running


URLS = {
    "tcp": "redis://{}127.0.0.1:{}/6",
    "options": "redis://{}127.0.0.1:{}?db=6&socket_timeout=3&health_check_interval=4",
    "socket": "unix://{}{}?db=6&socket_timeout=3",
}


@pytest.fixture(params=list(URLS.values()), ids=list(URLS))
def server_settings(
    request: pytest.FixtureRequest, server: EmbeddedValkey, settings: Settings
) -> Settings:
    where = server.data_dir / "valkey.sock" if "unix" in request.param else server.port
    return replace(settings, redis_url=request.param.format(f"{USER}:{PASSWORD}@", where))


def flower_environment(settings: Settings) -> dict[str, str]:
    return environment(settings, "http://127.0.0.1:9", FLOWER_BASIC_AUTH=":".join(LOGIN))


def test_jobs_are_sent_and_the_login_appears_nowhere(
    server_settings: Settings,
    server: EmbeddedValkey,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """Promises 2 and 9: the login is not in logs, in replies of a worker, or in Flower."""
    producer = Producer(server_settings)
    early = producer.enqueue(body())
    admin = redis.Redis(port=server.port, username=USER, password=PASSWORD, db=6)
    assert admin.llen(queue_name(server_settings)) == 1  # the doorbell has the ledger's database
    worker = start_worker("-l", "DEBUG", REDIS_URL=server_settings.redis_url)
    flower = Flower(flower_environment(server_settings), tmp_path, "--logging=debug")
    try:
        flower.start()
        (record,) = wait_until_ended(producer, [early])
        assert record.state is State.SENT

        control = SeparateCelery("test", server_settings).control
        inspect = control.inspect(timeout=DEADLINE_SECONDS, limit=1)
        answers = [inspect.stats(), inspect.conf(with_defaults=True), inspect.report()]
        assert all(answers)
        json.dumps(answers)
        workers = eventually(lambda: flower.get("/api/workers?refresh=1").json())
        pages = ["/api/workers?refresh=1", "/broker", *(f"/worker/{name}" for name in workers)]
        shown = [flower.get(page).text for page in pages]
    finally:
        flower.stop()
    traces = "\n".join([worker.log(), flower.log(), *map(repr, answers), *shown])
    assert PASSWORD not in traces
    assert USER not in traces
    assert "Secure redis scheme" not in traces


def test_flowers_page_of_the_broker_still_reads_its_queues(
    server: EmbeddedValkey, settings: Settings, tmp_path: Path
) -> None:
    """Flower opens its own connection there, with the login."""
    url = f"redis://{USER}:{PASSWORD}@127.0.0.1:{server.port}/0"
    ours = replace(settings, redis_url=url)
    for _ in range(7):
        Doorbell(ours).ring()
    flower = Flower(flower_environment(ours), tmp_path)
    try:
        flower.start()
        page = flower.get("/broker").text
    finally:
        flower.stop()
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(rf"{queue_name(ours)}\s+7\b", text), text


def test_a_bad_url_is_an_error_of_settings_for_a_producer_too(settings: Settings) -> None:
    """The error is raised before anything is stored."""
    with pytest.raises(SettingsError, match=r"^HARASOCIAL_REDIS_URL must not .* virtual_host"):
        Producer(replace(settings, redis_url=f"{settings.redis_url}?virtual_host=3"))


def test_enqueue_returns_the_id_even_if_a_doorbell_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2: the job is stored, so an error would be wrong."""

    def fail(*_: object, **__: object) -> None:
        raise TypeError("a fault in a library")

    monkeypatch.setattr(SeparateCelery, "send_task", fail)
    producer = Producer(settings)
    assert producer.get_job(producer.enqueue(body())).state is State.QUEUED
