"""Pages and their lanes: throttling, dead tokens and limits. No page delays another."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import redis
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.sandbox import DEFAULT_TOKEN, Sandbox
from harasocial_dispatch.schemas import Settings, State
from support.harness import StartWorker, body, eventually, wait_until_ended

SICK, WELL = "1111", "2222"


def test_a_throttled_page_waits_as_requested_and_spends_no_attempts(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promises 5 and 7: Retry-After applies to the whole page, and no attempt is spent."""
    start_worker(MAX_ATTEMPTS=1)
    throttled = producer.enqueue(body("sandbox:throttle_first:1:1.5", page_id=SICK))
    eventually(lambda: sandbox.totals().posts == 1)

    others = [producer.enqueue(body(metadata=f"{i}", page_id=SICK)) for i in range(5)]

    records = wait_until_ended(producer, [throttled, *others])
    assert {record.state for record in records} == {State.SENT}
    assert {record.attempt_count for record in records} == {1}
    arrivals = sorted(time for job in sandbox.jobs() for time in job.arrived_at_monotonic)
    assert arrivals[1] - arrivals[0] >= 1.5, "something was sent before Retry-After"


def test_no_page_can_delay_another(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 8: three pages hang, fail and are throttled; a fourth page is still sent."""
    start_worker("--concurrency", "1", CALL_DEADLINE_SECONDS=20, IN_FLIGHT=16)
    for sick_page, payload in (
        ("1111", "sandbox:hang"),
        ("1112", "sandbox:status:503"),
        ("1113", "sandbox:throttle:60"),
    ):
        producer.enqueue_many(
            body(f"{payload}#{i}", page_id=sick_page, metadata=str(i)) for i in range(300)
        )
    eventually(lambda: sandbox.totals().max_concurrent > 5, what="hanging calls")

    began = time.monotonic()
    ids = [producer.enqueue(body(page_id=WELL, metadata=f"{i}")) for i in range(50)]

    records = wait_until_ended(producer, ids)
    assert {record.state for record in records} == {State.SENT}
    assert time.monotonic() - began < 18, "they waited for a hanging call to end"


def test_a_dead_token_fails_one_job_and_the_page_resumes_with_a_new_one(
    producer: Producer,
    ledger: Ledger,
    sandbox: Sandbox,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """One dead token does not fail a whole campaign; a changed TOKENS_FILE resumes it."""
    # given a page whose token the API refuses, and another page that works
    sandbox.tokens = {WELL: DEFAULT_TOKEN, SICK: "the new token"}
    tokens_file = tmp_path / "tokens.json"
    tokens_file.write_text(json.dumps({WELL: DEFAULT_TOKEN, SICK: "the-old-token"}))
    start_worker("--concurrency", "1", TOKEN=None, TOKENS_FILE=tokens_file, IN_FLIGHT=4)
    sandbox.tokens = {WELL: DEFAULT_TOKEN, SICK: "the-new-token"}

    # when a campaign is enqueued on both
    sick = producer.enqueue_many(body(page_id=SICK, metadata=f"{i}") for i in range(100)).accepted
    well = producer.enqueue_many(body(page_id=WELL, metadata=f"{i}") for i in range(100)).accepted

    # then the working page is sent, and on the other page only the calls in flight have failed
    wait_until_ended(producer, well)
    eventually(ledger.reader.pauses, what="the pause")
    eventually(lambda: not ledger.reader.count_states()[State.SENDING], what="the end of the calls")
    (pause,) = ledger.reader.pauses()
    assert (pause.page_id, pause.reason, pause.error_code) == (SICK, "auth", "http_401")
    failed = len(producer.find_jobs(error_code="http_401"))
    assert 1 <= failed <= 4
    assert ledger.reader.waiting_by_page() == {SICK: 100 - failed}

    # and when the file has the new token, the other jobs are sent at once
    tokens_file.write_text(json.dumps({WELL: DEFAULT_TOKEN, SICK: "the-new-token"}))
    records = wait_until_ended(producer, sick)
    assert sum(record.state is State.SENT for record in records) == 100 - failed
    assert ledger.reader.pauses() == []


def test_a_page_without_a_token_fails_one_job_with_its_own_code(
    producer: Producer,
    ledger: Ledger,
    sandbox: Sandbox,
    start_worker: StartWorker,
    tmp_path: Path,
) -> None:
    """`token_missing` is recorded once; the other jobs wait, and nothing is POSTed for them."""
    tokens_file = tmp_path / "tokens.json"
    tokens_file.write_text(json.dumps({WELL: DEFAULT_TOKEN}))
    start_worker("--concurrency", "1", TOKEN=None, TOKENS_FILE=tokens_file)

    producer.enqueue_many(body(page_id=SICK, metadata=f"{i}") for i in range(20))
    well = producer.enqueue(body(page_id=WELL))

    wait_until_ended(producer, [well])
    (failed,) = eventually(lambda: producer.find_jobs(error_code="token_missing"))
    assert failed.page_id == SICK
    assert failed.attempt_count == 0, "no POST was made, so no attempt was spent"
    eventually(lambda: ledger.reader.waiting_by_page() == {SICK: 19}, what="the other jobs")
    assert sandbox.totals().posts == 1


def test_the_page_rate_holds_over_all_processes(
    producer: Producer, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """PAGE_RATE and PAGE_BURST limit the messages of a page, for any number of workers."""
    rate, burst, count = 20, 5, 45
    limits = {"PAGE_RATE": rate, "PAGE_BURST": burst}
    start_worker("--concurrency", "2", **limits)
    start_worker("--concurrency", "2", **limits)

    ids = producer.enqueue_many(body(metadata=f"{i}") for i in range(count)).accepted

    wait_until_ended(producer, ids)
    arrivals = sorted(time for job in sandbox.jobs() for time in job.arrived_at_monotonic)
    # In any window, at most the burst plus what the rate allows. A tenth of a second is added for
    # the jitter of the network.
    for i, first in enumerate(arrivals):
        for j in range(i, len(arrivals)):
            allowed = burst + rate * (arrivals[j] - first + 0.1)
            assert j - i + 1 <= allowed
    # … and the rate is used: at least half of it.
    assert arrivals[-1] - arrivals[0] <= 2 * (count - burst) / rate


def test_a_claim_checks_a_page_that_reached_its_rate_once_or_twice(
    settings: Settings, producer: Producer
) -> None:
    """Even if the page may send again within this millisecond, claims do not keep Redis busy."""
    ledger = Ledger(replace(settings, page_rate=1500, page_burst=1))
    client = redis.Redis.from_url(settings.redis_url, decode_responses=True)
    producer.enqueue_many(body(metadata=f"{i}") for i in range(20))

    def looks() -> int:
        return int(client.info("commandstats")["cmdstat_zrangebyscore"]["calls"])

    ledger.claim(1)
    before, claims = looks(), 0
    for _ in range(100):
        claims += len(ledger.claim(100).claims)

    assert claims > 1
    assert looks() - before <= 3 * 100
    ledger.close()
    client.close()


def test_a_failing_page_is_paused_and_probed_without_spending_its_jobs(
    producer: Producer, ledger: Ledger, sandbox: Sandbox, start_worker: StartWorker
) -> None:
    """Promise 7: an open breaker spends no attempts; when the endpoint works again, all is sent."""
    start_worker("--concurrency", "1", MAX_ATTEMPTS=4, IN_FLIGHT=8, RETRY_BASE_SECONDS=0.05)
    sandbox.fail_with(503)
    ids = producer.enqueue_many(body(metadata=f"{i}") for i in range(200)).accepted
    eventually(lambda: [p for p in ledger.reader.pauses() if p.reason == "failing"])
    before = sandbox.totals().posts
    eventually(lambda: sandbox.totals().posts > before, what="a probe")
    assert sandbox.totals().posts <= before + 8, "a paused page is probed, not hammered"

    sandbox.fail_with(None)

    records = wait_until_ended(producer, ids)
    untouched = [record for record in records if record.attempt_count == 1]
    assert len(untouched) > 150
    assert sum(record.state is State.SENT for record in records) >= 190
