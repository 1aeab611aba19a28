"""Workers that serve their metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import parse_new_job
from support.harness import (
    StartWorker,
    WorkerProcess,
    body,
    environment,
    eventually,
    free_port,
    unique_settings,
    wait_until_ended,
)
from support.scrape import GOOD_PAGE, REFUSED_PAGE, SLOW_PAGE, MixedTraffic, Scrape, StartScraped


def wait_for_another_process(worker: WorkerProcess) -> None:
    """Wait until a process of the pool has ended: an attentive one takes all that comes."""
    children = set(worker.children())
    eventually(lambda: children - set(worker.children()), what="another process in the pool")


@pytest.fixture
def start_scraped(start_worker: StartWorker) -> StartScraped:
    """Start a worker that serves metrics. The arguments are those of `start_worker`."""

    def start(*options: str, **changes: Any) -> tuple[WorkerProcess, Scrape]:
        port = free_port()
        worker = start_worker(*options, METRICS_PORT=port, **changes)
        return worker, Scrape(port)

    return start


@pytest.fixture(scope="session")
def mixed_traffic(
    valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MixedTraffic]:
    """A worker with sent, failed, retried, throttled, refused and expired messages. It logs JSON.

    Each process of the pool ends after one dispatch and is replaced.
    """
    settings = unique_settings(valkey.url)
    producer = Producer(settings)
    folder: Path = tmp_path_factory.mktemp("mixed_traffic")
    scrape = Scrape(free_port())
    with Sandbox() as sandbox:
        # A faster call may take less than a millisecond.
        sandbox.latency_seconds = 0.01
        worker = WorkerProcess(
            environment(
                settings,
                sandbox.url,
                METRICS_PORT=scrape.port,
                LOG_FORMAT="json",
                RETRY_BASE_SECONDS=0.1,
                RETRY_MAX_SECONDS=0.2,
            ),
            folder,
            *("--concurrency", "2", "--max-tasks-per-child", "1", "-l", "DEBUG"),
        )
        past = datetime.now(timezone.utc) - timedelta(seconds=1)
        # Its doorbell is lost, so the worker rings.
        with closing(Ledger(settings)) as ledger:
            job = parse_new_job(body(page_id=GOOD_PAGE), {"expires_at": past})
            late = [each.job_id for each in ledger.enqueue([job]).jobs]
        try:
            worker.start()
            sent = [producer.enqueue(body(page_id=GOOD_PAGE)) for _ in range(20)]
            wait_until_ended(producer, [*late, *sent])
            wait_for_another_process(worker)
            failed = [
                producer.enqueue(body("sandbox:code:10/2018278", page_id=GOOD_PAGE))
                for _ in range(3)
            ]
            wait_until_ended(producer, failed)
            wait_for_another_process(worker)
            retried = [producer.enqueue(body("sandbox:flaky:2", page_id=GOOD_PAGE))]
            throttled = [producer.enqueue(body("sandbox:throttle_first:1:0.1", page_id=SLOW_PAGE))]
            refused = [producer.enqueue(body("sandbox:status:401", page_id=REFUSED_PAGE))]
            wait_until_ended(producer, [*retried, *throttled, *refused])
            waiting = [producer.enqueue(body(page_id=REFUSED_PAGE)) for _ in range(4)]
            # The counts of a process arrive at the end of its dispatch.
            eventually(lambda: sum(scrape.outcomes().values()) >= 30, what="the last report")
            yield MixedTraffic(
                worker,
                scrape.keep(),
                settings,
                {
                    "sent": [*sent, *retried, *throttled],
                    "failed": [*failed, *refused, *late],
                    "waiting": waiting,
                },
            )
        finally:
            worker.kill()
            producer.close()
