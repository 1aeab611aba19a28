"""A host application's own Celery, configured by the environment, receives nothing of ours."""

from __future__ import annotations

import pytest
import redis
from harasocial_dispatch.broker import queue_name
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, body, wait_until_ended


@pytest.fixture
def of_the_host(valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> str:
    """The broker URL in Celery's variables. The other variables have unusable values."""
    broker = valkey.url.replace("/0", "/7")
    for name in ("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL"):
        monkeypatch.setenv(f"CELERY_{name}", broker)
    for name in ("CELERY_RESULT_BACKEND", "CELERY_LOADER", "CELERY_CONFIG_MODULE"):
        monkeypatch.setenv(name, "of_the_host.alone")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "of_the_host.alone")
    return broker


def test_a_doorbell_goes_to_our_own_broker(of_the_host: str, settings: Settings) -> None:
    """Promise 2: these variables also do not make `enqueue` raise."""
    producer = Producer(settings)
    assert len(producer.enqueue(body())) == 32

    assert redis.Redis.from_url(settings.redis_url).llen(queue_name(settings)) == 1
    assert redis.Redis.from_url(of_the_host).dbsize() == 0


def test_a_worker_answers_doorbells_there(
    of_the_host: str, producer: Producer, start_worker: StartWorker
) -> None:
    """The worker is started with the host application's environment, as services often are."""
    worker = start_worker()

    (record,) = wait_until_ended(producer, [producer.enqueue(body())])

    assert record.state is State.SENT
    assert redis.Redis.from_url(of_the_host).dbsize() == 0
    assert worker.terminate() == 0
