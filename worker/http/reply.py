"""The end of a call: a reply or a failure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An HTTP reply.

    Attributes:
        body: None if it was too large, incomplete, or could not be decompressed.
        retry_after, date, call_limit: the values of the headers `Retry-After`, `Date` and
            `X-Haravan-Api-Call-Limit`, or None.
    """

    status: int
    body: bytes | None
    retry_after: str | None = None
    date: str | None = None
    call_limit: str | None = None


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call without a reply.

    Attributes:
        kind: `connection_failed` or `not_started` if no part of the request went out;
            `connection_lost` or `timeout` if it may have gone out.
        detail: the cause. It contains no sent or received data.
    """

    kind: str
    detail: str
