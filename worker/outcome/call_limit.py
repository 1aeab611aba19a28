"""Parse `X-Haravan-Api-Call-Limit`, the level of the API's leaky bucket, such as `32/80`."""

from __future__ import annotations

import re

from ...schemas import CallLimit

#: Maximum limit. A header with a larger limit is ignored as a mistake of the server.
_MAX_LIMIT = 1_000_000

_USED_OF_LIMIT = re.compile(r"\s*([0-9]{1,7})\s*/\s*([0-9]{1,7})\s*", re.ASCII)


def parse_call_limit(value: str | None) -> CallLimit | None:
    """Parse the header. Return None if it is missing or invalid.

    A valid header is `used/limit` in whole numbers, with a limit from 1 to a million, and `used`
    not above it. Any other value is ignored, because it could stop a page for no reason.
    """
    if value is None or (match := _USED_OF_LIMIT.fullmatch(value)) is None:
        return None
    used, limit = int(match[1]), int(match[2])
    return CallLimit(used, limit) if 1 <= limit <= _MAX_LIMIT and used <= limit else None
