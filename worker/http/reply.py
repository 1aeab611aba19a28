"""The two ways in which a call ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back over the wire.

    Attributes:
        body: None when it was larger than the cap, cut short, or could not be decompressed.
        retry_after, date, call_limit: the texts of `Retry-After`, `Date` and
            `X-Haravan-Api-Call-Limit`, or None.
    """

    status: int
    body: bytes | None
    retry_after: str | None = None
    date: str | None = None
    call_limit: str | None = None


@dataclass(frozen=True, slots=True)
class CallFailed:
    """There is no reply.

    Attributes:
        kind: `connection_failed` or `not_started` if nothing of the request went out;
            `connection_lost` or `timeout` if it may have.
        detail: the cause, without anything that was sent or received.
    """

    kind: str
    detail: str
