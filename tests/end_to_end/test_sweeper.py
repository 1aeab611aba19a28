"""The sweep's thread, with a real server: much to do at once does not pile up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from harasocial_dispatch.ledger import Ledger
from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.sweeper import Sweeper
from stage import eventually


@pytest.fixture
def client(settings: Settings) -> Iterator[Any]:
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as made:
        yield made


@pytest.fixture
def sweeper(settings: Settings) -> Iterator[Sweeper]:
    """A sweep whose token is not the one that was refused."""
    made = Sweeper(replace(settings, token="a-new-token"))
    yield made
    made.stop()


def test_very_many_pages_resume_with_a_new_token(
    settings: Settings, ledger: Ledger, client: Any, sweeper: Sweeper
) -> None:
    """One refused token can pause all pages; no sweep has them all read at once."""
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
    """Sent at thousands a second, jobs expire as fast; their list is not to grow for it."""
    sent = f"{{{settings.namespace}}}:sent"
    client.lpush(sent, *(f"expired-{i}" for i in range(20_000)))
    sweeper.start()
    eventually(lambda: client.llen(sent) == 0, seconds=10, what="an empty list")
