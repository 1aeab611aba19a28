"""A campaign whose workers and whose Redis are killed half-way: its counts add up to the row."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harasocial_dispatch.ledger import Campaign
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import EmbeddedValkey, Sandbox
from harasocial_dispatch.schemas import CampaignNotFound, QueueUnavailable, State
from support.harness import WorkerProcess, body, environment, kill, unique_settings

#: FAULT_CAMPAIGN_ROWS=100000 for a whole campaign.
ROWS = int(os.environ.get("FAULT_CAMPAIGN_ROWS", "4000"))
PAGES, KILLS, RESTARTS = 5, 8, 1
NAME = "tet-2026"


def rows() -> Iterator[dict[str, Any]]:
    """Yield the rows, over five pages; three of a hundred are refused for good."""
    for i in range(ROWS):
        payload = "sandbox:code:551" if i % 100 in (7, 41, 83) else "__hrf_f_1"
        row = body(payload, page_id=str(5000 + i % PAGES), recipient_id=str(10**15 + i))
        yield {**row, "metadata": f"row {i}", "campaign": NAME}


def test_a_finished_campaign_adds_up_to_the_row(
    sandbox: Sandbox, tmp_path: Path, chance: random.Random
) -> None:
    """Promise 15, with killed children, killed workers and a killed Redis while it is enqueued.

    The rows are enqueued twice, as the same file would be; the second time stores nothing.
    """
    sandbox.latency_seconds = 0.005
    with EmbeddedValkey(appendonly="yes", appendfsync="always") as server:
        settings = unique_settings(server.url)
        times = {"LEASE_SECONDS": 3, "CALL_DEADLINE_SECONDS": 2, "PAGE_RATE": 0}
        env = environment(settings, sandbox.url, **times)

        def start() -> WorkerProcess:
            return WorkerProcess(env, tmp_path, "--concurrency", "2").start(wait=False)

        producer = Producer(settings)
        workers = [start(), start()]
        enqueuing = threading.Thread(target=enqueue, args=(producer,))
        try:
            enqueuing.start()
            wait_for(producer, share=0.1)
            for number in range(KILLS):
                worker = chance.choice(workers)
                if number % 4 == 3:
                    worker.kill()
                    workers[workers.index(worker)] = start()
                elif children := worker.children():
                    kill(chance.choice(children))
                if number == KILLS // 2:
                    server.kill()
                    time.sleep(1)
                    server.restart()
                time.sleep(chance.uniform(0.2, 0.6))
            enqueuing.join(60 + ROWS / 100)
            assert not enqueuing.is_alive()
            wait_for(producer, share=1.0)
            check(producer, sandbox)
        finally:
            for worker in workers:
                worker.kill()
            producer.close()


def enqueue(producer: Producer) -> None:
    """Enqueue every row, once more from the beginning after each outage; and once too often."""
    passes = 0
    while passes < 2:
        try:
            report = producer.enqueue_many(rows())
        except QueueUnavailable:
            time.sleep(0.2)
            continue
        passes += 1
    assert (report.new_count, report.already_enqueued_count) == (0, ROWS)


def wait_for(producer: Producer, *, share: float) -> None:
    """Wait until this share of the rows has ended."""
    deadline = time.monotonic() + 60 + ROWS / 100
    while True:
        campaign: Campaign | None = None
        try:
            campaign = producer.get_campaign(NAME)
            if campaign.ended >= share * ROWS:
                return
        except (QueueUnavailable, CampaignNotFound):
            pass
        assert time.monotonic() < deadline, campaign
        time.sleep(0.1)


def check(producer: Producer, sandbox: Sandbox) -> None:
    campaign = producer.get_campaign(NAME)
    failures = ROWS * 3 // 100
    print(f"{ {state.value: n for state, n in campaign.states.items() if n} }", end=" ")  # noqa: T201 - the figures of the run
    assert campaign.finished_at is not None
    assert campaign.rows == campaign.enqueued == campaign.ended == ROWS
    assert +Counter(campaign.states) == {State.SENT: ROWS - failures, State.FAILED: failures}
    assert campaign.errors == {"551": failures}
    assert len(campaign.pages) == PAGES
    for page in campaign.pages.values():
        assert sum(page.states.values()) == ROWS // PAGES
    for state, count in campaign.states.items():
        assert sum(page.states[state] for page in campaign.pages.values()) == count
    # The jobs themselves say the same, and the endpoint has received every row.
    assert producer.count_states()[State.SENT] == ROWS - failures
    assert producer.count_errors(campaign=NAME) == {"551": failures}
    posts = {job.metadata: job.posts for job in sandbox.jobs()}
    assert len(posts) == ROWS
    print(f"{sum(count > 1 for count in posts.values())} POSTed twice")  # noqa: T201 - the same
    records = producer.find_jobs(campaign=NAME, limit=ROWS)
    assert len(records) == ROWS
    # A POST after an attempt that stands in the job's record, with why its outcome is unknown.
    unexplained = [r for r in records if posts[r.job["metadata"]] > r.attempt_count]
    assert unexplained == []
