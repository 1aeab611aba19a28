"""The sweep's thread on a real server: much work at once, and a sweeper that is killed."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.producer import Producer
from harasocial_dispatch.schemas import Settings, State
from harasocial_dispatch.worker.sweeper import Sweeper
from harasocial_dispatch.worker.tokens import fingerprint_of
from support.harness import DEADLINE_SECONDS, body, eventually


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as made:
        yield made


@pytest.fixture
def sweeper(settings: Settings) -> Iterator[Sweeper]:
    """A sweeper whose token is not the refused one."""
    made = Sweeper(replace(settings, token="a-new-token"))
    yield made
    made.stop()


def test_very_many_pages_resume_with_a_new_token(
    settings: Settings, ledger: Ledger, client: Any, sweeper: Sweeper
) -> None:
    """One refused token can pause all pages. No sweep reads all of them at once."""
    pause = {"reason": "auth", "level": 1, "failures": 0, "until_ms": 2**52}
    pauses = {f"{page}": json.dumps(pause | {"token_fingerprint": "old"}) for page in range(5000)}
    client.hset(f"{{{settings.namespace}}}:pauses", mapping=pauses)
    some, cursor = ledger.reader.some_pauses()
    assert len(some) < 2000
    assert cursor != 0
    assert {pause.page_id for pause in ledger.reader.pauses()} == set(pauses)

    sweeper.start()
    eventually(lambda: not ledger.reader.pauses(), what="the end of all pauses")


def test_what_expired_together_is_forgotten_together(
    settings: Settings, client: Any, sweeper: Sweeper
) -> None:
    """Thousands of sent jobs per second also expire per second; their list must not grow."""
    sent = f"{{{settings.namespace}}}:sent"
    client.lpush(sent, *(f"expired-{i}" for i in range(20_000)))
    sweeper.start()
    eventually(lambda: client.llen(sent) == 0, seconds=10, what="an empty list")


def test_pages_with_their_own_tokens_are_limited_by_token(
    settings: Settings, producer: Producer, client: Any, tmp_path: Path
) -> None:
    """The ledger gets the fingerprint of each token in the tokens file, and each change."""
    tokens_file = tmp_path / "tokens.json"
    tokens_file.write_text(json.dumps({"1": "token-a", "2": "token-a", "3": "token-b"}))
    settings = replace(settings, tokens_file=tokens_file, token_rate=0.001, token_burst=1)
    for page_id in "123":
        producer.enqueue(body() | {"page_id": page_id})
    page_tokens = f"{{{settings.namespace}}}:page_tokens"
    client.hset(page_tokens, "4", "a page that is no longer in the file")
    sweeper = Sweeper(settings)
    sweeper.start()
    try:
        tokens = {"1": fingerprint_of("token-a"), "3": fingerprint_of("token-b")}
        tokens["2"] = tokens["1"]
        eventually(lambda: client.hgetall(page_tokens) == tokens, what="the tokens of the pages")
        with closing(Ledger(settings)) as ledger:
            claims = ledger.claim(10).claims
        # Of pages 1 and 2, only one may send: they share a token.
        assert len(claims) == 2
        assert "3" in {claim.page_id for claim in claims}

        tokens_file.write_text(json.dumps({"3": "token-b"}))
        eventually(lambda: client.hlen(page_tokens) == 1, what="the removal of two tokens")
    finally:
        sweeper.stop()


def _sweep_without_recording(settings: Settings, claimed: Any) -> None:
    def record(*_: object) -> None:
        claimed.set()
        time.sleep(60)

    Ledger.record = record  # type: ignore[assignment, method-assign]  # in a process of its own
    Sweeper(settings).start()
    time.sleep(60)


@pytest.mark.parametrize(
    ("delivery", "state"), [("at_least_once", State.RETRYING), ("at_most_once", State.FAILED)]
)
def test_a_sweeper_killed_before_it_records_loses_nothing(
    settings: Settings, producer: Producer, ledger: Ledger, delivery: Any, state: State
) -> None:
    """Another sweeper claims the job again; one attempt is recorded for the one call."""
    # given a job whose worker stopped
    waits = replace(settings, retry_base_seconds=1000.0, retry_max_seconds=1000.0)
    settings = replace(waits, token="secret", lease_seconds=0.5)
    job_id = producer.enqueue(body(), delivery=delivery)
    assert len(Ledger(settings).claim(1).claims) == 1

    # when a sweeper is killed between its claim and its record
    fork = multiprocessing.get_context("fork")
    claimed = fork.Event()
    process = fork.Process(target=_sweep_without_recording, args=(settings, claimed))
    process.start()
    try:
        assert claimed.wait(DEADLINE_SECONDS)
    finally:
        process.kill()
        process.join()
    record = producer.get_job(job_id)
    assert (record.state, record.attempt_count) == (State.SENDING, 0)

    # then the next one records what the first would have
    survivor = Sweeper(settings)
    survivor.start()
    try:
        eventually(lambda: producer.get_job(job_id).state is state, what="the record")
    finally:
        survivor.stop()
    record = producer.get_job(job_id)
    assert [attempt.error_code for attempt in record.attempts] == ["unknown_outcome"]
    assert record.attempt_count == 1
