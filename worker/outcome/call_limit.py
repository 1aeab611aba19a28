"""The `X-Haravan-Api-Call-Limit` header: how full the API's leaky bucket is, such as `32/80`."""

from __future__ import annotations

import re

from ...schemas import CallLimit

#: A larger bucket than this is taken for a mistake of the server.
_MAX_LIMIT = 1_000_000

_USED_OF_LIMIT = re.compile(r"\s*([0-9]{1,7})\s*/\s*([0-9]{1,7})\s*", re.ASCII)


def parse_call_limit(value: str | None) -> CallLimit | None:
    """Return the bucket that a header's text describes, or None if it describes none.

    Obeying a nonsensical bucket could stop a page: what is not `used/limit` in whole numbers, with
    a limit from 1 to a million and no more used than that, is ignored.
    """
    if value is None or (match := _USED_OF_LIMIT.fullmatch(value)) is None:
        return None
    used, limit = int(match[1]), int(match[2])
    return CallLimit(used, limit) if 1 <= limit <= _MAX_LIMIT and used <= limit else None
