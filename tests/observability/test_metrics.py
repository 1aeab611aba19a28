"""The worker's metrics are exact for every pool and after kills. They are off by default."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from urllib.error import URLError

import pytest
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import Settings, State
from harasocial_dispatch.worker.observe.metrics import Metrics
from support.harness import (
    DEADLINE_SECONDS,
    WorkerProcess,
    body,
    environment,
    eventually,
    free_port,
    kill,
    wait_until_ended,
)
from support.scrape import RECIPIENT, REFUSED_PAGE, MixedTraffic, Scrape, StartScraped


def test_every_outcome_is_counted_once_over_all_processes(mixed_traffic: MixedTraffic) -> None:
    """The counts by state and error code include processes that have ended."""
    assert mixed_traffic.scrape.outcomes() == {
        ("sent", ""): 22,
        ("failed", "10/2018278"): 3,
        ("failed", "http_401"): 1,
        ("failed", "expired"): 1,
        ("retrying", "http_503"): 2,
        ("queued", "http_429"): 1,
    }
    children = set(re.findall(r'"process": "(ForkPoolWorker-\d+)"', mixed_traffic.worker.log()))
    assert len(children) > 2


def test_calls_and_waits_are_counted_too(mixed_traffic: MixedTraffic) -> None:
    """Each POST counts by outcome class. Each job's wait counts only once."""
    samples = mixed_traffic.scrape.samples()
    calls = {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples.items()
        if name == "harasocial_call_duration_seconds_count"
    }
    assert calls == {"accepted": 22, "permanent": 3, "auth": 1, "transient": 2, "throttled": 1}
    for outcome, count in calls.items():
        labels = {"outcome": outcome, "le": "20.0"}
        assert mixed_traffic.scrape.value("call_duration_seconds_bucket", **labels) == count
        seconds = mixed_traffic.scrape.value("call_duration_seconds_sum", outcome=outcome)
        assert 0.009 * count < seconds < 20 * count
    # Every job except the expired one, which had no attempt.
    assert mixed_traffic.scrape.value("queue_wait_seconds_count") == 26
    assert mixed_traffic.scrape.value("doorbells_total") >= 1
    assert mixed_traffic.scrape.value("claims_lost_total") == 0


def test_a_scrape_includes_the_ledger(mixed_traffic: MixedTraffic) -> None:
    """It has the numbers of waiting jobs and of paused pages."""
    scrape = mixed_traffic.scrape
    assert scrape.value("ledger_up") == 1
    assert scrape.value("jobs", state="sent") == 22
    assert scrape.value("jobs", state="failed") == 5
    assert scrape.value("failed_jobs", error_code="10/2018278") == 3
    assert scrape.value("waiting_jobs", page_id=REFUSED_PAGE) == 4
    assert scrape.value("paused_pages", reason="auth") == 1
    assert scrape.value("oldest_waiting_seconds") > 0
    assert scrape.value("due_jobs") == 0


def test_a_scrape_contains_no_token_or_recipient(mixed_traffic: MixedTraffic) -> None:
    """Many people can see metrics, for a long time."""
    text = mixed_traffic.scrape.text()
    assert DEFAULT_TOKEN not in text
    assert RECIPIENT not in text


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_other_pools_have_the_same_counts(
    producer: Producer, start_scraped: StartScraped, pool: str
) -> None:
    """In these pools, the sending process serves the metrics. Its port closes when it ends."""
    worker, scrape = start_scraped("--pool", pool)
    jobs = [producer.enqueue(body()) for _ in range(10)]
    jobs += [producer.enqueue(body("sandbox:code:551")) for _ in range(2)]
    wait_until_ended(producer, jobs)
    eventually(lambda: sum(scrape.outcomes().values()) >= 12, what="the count")
    assert scrape.outcomes() == {("sent", ""): 10, ("failed", "551"): 2}

    assert worker.terminate() == 0
    with pytest.raises(URLError):
        scrape.text()


def test_a_killed_worker_leaves_no_file(
    producer: Producer,
    start_scraped: StartScraped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A killed worker cannot remove files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    worker, scrape = start_scraped()
    wait_until_ended(producer, [producer.enqueue(body())])
    eventually(lambda: scrape.outcomes() == {("sent", ""): 1}, what="the count")
    worker.kill()
    # Celery's pool creates an empty folder `pymp-…`, with or without metrics.
    assert [path for path in folder.rglob("*") if not path.name.startswith("pymp-")] == []


def test_the_counts_of_a_killed_process_are_complete(
    producer: Producer, start_scraped: StartScraped
) -> None:
    """The main process counts the unknown outcome of the job that it was sending."""
    # given a process that has sent a job and is sending another
    worker, scrape = start_scraped("--concurrency", "1", LEASE_SECONDS=2, MAX_ATTEMPTS=1)
    wait_until_ended(producer, [producer.enqueue(body())])
    eventually(lambda: scrape.outcomes() == {("sent", ""): 1}, what="the first count")
    hanging = producer.enqueue(body("sandbox:hang"))
    eventually(lambda: producer.get_job(hanging).state is State.SENDING, what="the call")

    # when it is killed
    for child in worker.children():
        kill(child)
    wait_until_ended(producer, [hanging])
    wait_until_ended(producer, [producer.enqueue(body())])

    # then the counts are complete
    expected = {("sent", ""): 2, ("failed", "unknown_outcome"): 1}
    eventually(lambda: scrape.outcomes() == expected, what="the last count")


def test_a_scrape_without_redis_reports_it_and_keeps_the_counts(
    tmp_path: Path,
) -> None:
    """Metrics are important during an outage."""
    scrape = Scrape(free_port())
    with Sandbox() as sandbox, EmbeddedValkey() as server:
        settings = Settings(redis_url=server.url)
        worker = WorkerProcess(
            environment(settings, sandbox.url, METRICS_PORT=scrape.port), tmp_path, "--pool=solo"
        ).start()
        try:
            producer = Producer(settings)
            wait_until_ended(producer, [producer.enqueue(body())])
            eventually(lambda: scrape.outcomes() == {("sent", ""): 1}, what="the count")
            server.stop()
            began = time.monotonic()
            assert scrape.value("ledger_up") == 0
            assert scrape.outcomes() == {("sent", ""): 1}
            assert time.monotonic() - began < 10
        finally:
            worker.kill()


def test_a_port_in_use_stops_the_start(
    mixed_traffic: MixedTraffic, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The error names the setting in one line. Each worker on a host needs its own port."""
    env = environment(mixed_traffic.settings, sandbox.url, METRICS_PORT=mixed_traffic.scrape.port)
    worker = WorkerProcess(env, tmp_path).start(wait=False)
    assert worker.process.wait(DEADLINE_SECONDS) == 2
    (line,) = [line for line in worker.log().splitlines() if "Error" in line]
    assert (
        f"HARASOCIAL_METRICS_PORT: cannot listen on 127.0.0.1:{mixed_traffic.scrape.port}:" in line
    )
    assert "Traceback" not in worker.log()


def test_without_a_port_nothing_is_served(settings: Settings) -> None:
    """There is no port by default."""
    threads = set(threading.enumerate())
    metrics = Metrics(settings)
    metrics.serve()
    metrics.report()
    metrics.count_doorbell()
    metrics.flush()
    metrics.stop()
    assert set(threading.enumerate()) <= threads
