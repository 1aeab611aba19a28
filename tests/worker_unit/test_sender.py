"""The sender judges the end of a call."""

from __future__ import annotations

import time

from harasocial_dispatch.schemas import Settings
from harasocial_dispatch.worker.http import Endpoint, Reply
from harasocial_dispatch.worker.sender import Flight, Sender
from harasocial_dispatch.worker.tokens import Tokens
from support.results import make_claim


def test_a_slow_claim_does_not_shorten_the_wait_until_a_date() -> None:
    """The ledger's clock is read during the claim, at the latest when its reply arrives."""
    settings = Settings(token="token-1234567890")
    sender = Sender(endpoint=Endpoint(settings), tokens=Tokens(settings), settings=settings)
    now = time.monotonic()
    # 10:00:00 by the ledger's clock; the call of the ledger took five seconds
    claim = make_claim(claimed_at_ms=1_769_853_600_000, claimed_at=now - 5, received_at=now)
    reply = Reply(status=429, body=b"", retry_after="Sat, 31 Jan 2026 10:00:30 GMT")

    result = sender.judge(Flight(claim, b"", "token-1234567890", now, now, reply))

    assert 29 < (result.outcome.retry_after_seconds or 0) <= 30
