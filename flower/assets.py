"""Our own style and script, and addresses by which a browser may keep them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "static"


@lru_cache(maxsize=8)
def address_of(name: str) -> str:
    """Return the query that is added to a file's address: another one when the file changes."""
    return "?v=" + hashlib.blake2b((FOLDER / name).read_bytes(), digest_size=6).hexdigest()
